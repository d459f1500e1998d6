# A Vagrantfile by which `fab doctor` sees that Vagrant has the plugin vagrant-libvirt and that the
# plugin gets through to libvirt: `vagrant status` alone finds it without loading its driver.
require "vagrant-libvirt/driver"
Libvirt.open("qemu:///system").close
Vagrant.configure("2") { |config| config.vm.provider(:libvirt) }
