//! What a new Keystone is told: who there is, and where images are.

use serde_json::{Value, json};

use super::{Curl, Glance, text};

/// The account by which Glance asks Keystone whose a token is.
pub(super) const SERVICE: (&str, &str, &str) = ("glance", "glance-secret-of-keystone", "service");

/// Tells all of it.
pub(super) fn all(glance: &Glance) {
    let keystone = Keystone {
        url: glance.identity_url(),
        token: glance.token(Glance::ADMINISTRATOR),
    };
    let (name, password, project) = SERVICE;
    keystone.person(name, password, project, &["admin", "service"]);
    let user = Glance::USER;
    keystone.person(user.name, user.password, user.project, &["member"]);
    let service = json!({ "service": { "name": "glance", "type": "image" } });
    let service = keystone.make("services", &service)["service"]["id"].clone();
    for (interface, url) in [
        ("public", glance.image_url()),
        ("internal", glance.secure_image_url()),
    ] {
        let endpoint = json!({ "endpoint": {
            "service_id": service, "interface": interface, "region_id": Glance::REGION,
            "url": url } });
        keystone.make("endpoints", &endpoint);
    }
}

struct Keystone {
    url: String,
    token: String,
}

impl Keystone {
    /// A project, and a user who has those of the roles in it that this Keystone knows.
    fn person(&self, name: &str, password: &str, project: &str, roles: &[&str]) {
        let project = json!({ "project": { "name": project, "domain_id": "default" } });
        let project = text(&self.make("projects", &project)["project"]["id"]);
        let user = json!({ "user": {
            "name": name, "password": password, "domain_id": "default" } });
        let user = text(&self.make("users", &user)["user"]["id"]);
        let known = self.request("GET", "roles").send().ok().json();
        for role in known["roles"].as_array().expect("a list") {
            if roles.contains(&text(&role["name"]).as_str()) {
                let role = text(&role["id"]);
                let path = format!("projects/{project}/users/{user}/roles/{role}");
                drop(self.request("PUT", &path).send().ok());
            }
        }
    }

    fn make(&self, kind: &str, body: &Value) -> Value {
        self.request("POST", kind).json(body).send().ok().json()
    }

    fn request(&self, method: &str, path: &str) -> Curl {
        Curl::new(method, &format!("{}/{path}", self.url)).header("X-Auth-Token", &self.token)
    }
}
