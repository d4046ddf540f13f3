"""The chat template turns examples into token ids and a loss mask."""
