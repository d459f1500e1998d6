"""vagrantp: a VM or a container for every folder that holds a flat `.env`."""
