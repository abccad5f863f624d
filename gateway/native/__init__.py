"""Pass-through: `/openai/*`, `/anthropic/*`, `/gemini/*`, `/bedrock/*`. providers' own APIs for their own clients, on the one path."""
