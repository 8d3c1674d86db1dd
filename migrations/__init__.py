"""Alembic's migrations; `app.persistence.migrate` applies them, from a checkout and from a wheel alike."""
