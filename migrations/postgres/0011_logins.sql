-- Since when renewals of a connection have failed, and with which word the authorization server refused one last. Both
-- are empty again after new tokens.
ALTER TABLE connection_secrets ADD COLUMN failing_since BIGINT;
ALTER TABLE connection_secrets ADD COLUMN refusal TEXT;

-- The domain of a person's verified e-mail address when they last signed in, for settings that let in some domains only.
ALTER TABLE accounts ADD COLUMN email_domain TEXT NOT NULL DEFAULT '';
CREATE INDEX accounts_by_subject ON accounts (subject);
