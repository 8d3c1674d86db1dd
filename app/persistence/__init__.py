"""The database: engine, tables, and every query, one file a resource."""
