"""Who may do what: accounts, their roles, login sessions, API tokens, the audit trail."""
