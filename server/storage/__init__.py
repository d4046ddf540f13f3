"""The database: connections, tables, migrations, pages of a list."""
