# The agent's own configuration of git, in the guest; and where it has files outside of the folder.
SCRATCH=$(mktemp -d)
export SCRATCH HOME="$SCRATCH"
git config --global user.name Agent
git config --global user.email agent@example.test
git config --global init.defaultBranch main
git config --global --replace-all safe.directory '*'
git config --global protocol.file.allow always
