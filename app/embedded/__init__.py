"""What `muka serve` brings along when no broker is named: a broker, and one supervised worker."""
