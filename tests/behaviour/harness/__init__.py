"""What behaviour tests stand on: weir as a process, and both of its peers as plain sockets."""
