"""What one would use instead of each op, in plain torch and in the libraries people have."""
