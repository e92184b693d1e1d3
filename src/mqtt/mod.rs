mod acl;
mod first_packet;
mod protocol;
mod publicacion;
mod retained;
mod router;
mod topic;
