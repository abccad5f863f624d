"""OpenAI's Responses API and conversations: translated where a deployment speaks only chat, passed through where it speaks it itself."""
