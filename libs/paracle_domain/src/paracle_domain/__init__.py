"""The contract of Paracle: ids, subjects, specs, messages and the pure run and task machines."""
