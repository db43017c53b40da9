"""What is trained and what is measured on it. ``Task`` is the contract; a user's own task uses the same door."""
