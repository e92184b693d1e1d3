-- Access tokens say which generation of their account they are of. Deactivating the account begins another, so
-- that a token from before is not good again when the account is.
ALTER TABLE identidades ADD COLUMN generacion BIGINT NOT NULL DEFAULT 0;
