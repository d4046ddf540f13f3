"""Renders examples with the chat template to token ids and labels."""
