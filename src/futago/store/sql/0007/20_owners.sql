-- Which owner roles an account has: it sees, starts and operates what they own, as far as its access role goes. '*': all of them.

CREATE TABLE account_owner (
    account_name text NOT NULL REFERENCES account ON DELETE CASCADE,
    owner_role   text NOT NULL CHECK (owner_role <> ''),
    PRIMARY KEY (account_name, owner_role)
);
