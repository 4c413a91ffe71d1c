"""What protects us from text and work of strangers: judged here, carried out by the daemon. Pure."""
