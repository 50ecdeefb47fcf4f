-- Open approvals are looked through now and then for those whose runs have ended. They are few among many.
create index approvals_open on approvals (id) where open;
