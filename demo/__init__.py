"""What the demonstration of muka is made of: its data and its teachers."""
