"""muka: the API process, and what API and worker share. Never imports torch."""
