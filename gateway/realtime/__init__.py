"""`/v1/realtime`: conversations over a WebSocket, event by event; each response is held before it is made and settled when it ends."""
