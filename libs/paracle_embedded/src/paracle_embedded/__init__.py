"""nats-server and PostgreSQL from their wheels, as child processes of yours."""
