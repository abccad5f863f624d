"""Files of every kind into text with exact anchors, in a process that a hostile file may kill without harm."""
