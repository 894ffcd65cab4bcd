"""Other libraries, asked for the channels that they would move together."""
