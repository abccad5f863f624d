"""Where distilling meets the gateway: recorded answers are labels on one side, a model that answers chats on the other."""
