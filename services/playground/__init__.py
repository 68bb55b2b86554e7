"""A page on which a person clicks a session together and sees what is ranked."""
