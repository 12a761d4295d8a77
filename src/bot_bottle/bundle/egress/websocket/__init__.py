"""WebSocket (RFC 6455) on its way through: the switch to it, its frames, and the two directions after the switch."""
