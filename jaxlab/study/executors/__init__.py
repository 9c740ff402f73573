"""Executors: each module's ``make`` returns one that does a study's runs somewhere."""
