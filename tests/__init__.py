"""The tests; a package, for a dependency installs one of this name as well."""
