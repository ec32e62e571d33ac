"""The control interface: HTTP/JSON and server-sent events on the daemon's Unix socket."""
