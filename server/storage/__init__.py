"""The database: connections, tables, migrations, list pages."""
