"""Which deployment of a model a call goes to, which version of a route or a prompt it gets. Pure: no waits, no clock but a given one."""
