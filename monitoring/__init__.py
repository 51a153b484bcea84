"""Watch what the endpoint sees and says, and let people correct it."""
