"""What muka is about, without I/O or framework: statuses, recipes, identifiers, labels, errors."""
