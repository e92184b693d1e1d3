-- Tokens that another server issued for a person before this moment are good no more: set when they are let in again after
-- they were deactivated. Our own tokens say of which generation of their account they are (0007).
ALTER TABLE trabajadores ADD COLUMN valen_desde BIGINT NOT NULL DEFAULT 0;
