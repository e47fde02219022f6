"""What every other part of the package stands on: values, ids, errors, environments, and what this process is. Nothing
here starts a runtime, and nothing here knows of functions or actors. Imported by every layer; imports the extension and
`libray.exceptions` alone (docs/architecture.md, "The Python package")."""
