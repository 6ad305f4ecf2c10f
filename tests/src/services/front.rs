//! TLS in front of servers that have none: nginx, which keeps nothing back. A server behind it that is stopped
//! breaks the client's connection, too.

use std::fmt::Write as _;
use std::path::Path;

use super::authority::Authority;
use super::server::Server;

/// A server that passes what comes over https on to others of this loopback.
///
/// It works in `folder`; each of the pairs is a port for https and the port that it is passed on to.
pub(super) fn before(folder: &Path, authority: &Authority, pairs: &[(u16, u16)]) -> Server {
    let user = match rustix::process::geteuid().is_root() {
        true => "user root;",
        false => "",
    };
    let (certificate, key) = authority.server();
    let mut servers = String::new();
    for (secure, plain) in pairs {
        let _ = writeln!(
            servers,
            "  server {{ listen 127.0.0.1:{secure} ssl; location / {{
    proxy_pass http://127.0.0.1:{plain}; proxy_http_version 1.1; proxy_buffering off;
    proxy_request_buffering off; proxy_set_header Host $http_host; }} }}"
        );
    }
    let text = format!(
        "{user}\ndaemon off; master_process off; pid temporary/pid; error_log stderr;\n\
         events {{ worker_connections 256; }}\nhttp {{\n  access_log off; client_max_body_size 0;\n  \
         client_body_temp_path temporary/body; proxy_temp_path temporary/proxy;\n  \
         fastcgi_temp_path temporary/fastcgi; uwsgi_temp_path temporary/uwsgi;\n  \
         scgi_temp_path temporary/scgi;\n  \
         ssl_certificate '{}'; ssl_certificate_key '{}';\n{servers}}}\n",
        certificate.display(),
        key.display()
    );
    std::fs::create_dir_all(folder.join("temporary")).expect("the target folder is writable");
    std::fs::write(folder.join("front.conf"), text).expect("the target folder is writable");
    let prefix = folder.to_str().expect("the target folder is UTF-8");
    let words = [
        super::nginx::program(),
        "-p",
        prefix,
        "-e",
        "stderr",
        "-c",
        "front.conf",
    ];
    let (port, _) = pairs.first().expect("there is something behind it");
    Server::new("front", folder, *port, &words)
}
