"""Files that clients keep here: their bytes in a folder, what is known of them in the database."""
