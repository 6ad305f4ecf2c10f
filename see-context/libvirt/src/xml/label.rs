//! Our label in the metadata of a domain or network: the proof that it is ours to delete.

use super::tree::Element;

/// The XML namespace of the label.
pub const LABEL_NAMESPACE: &str = "urn:see:environment:1";

/// The prefix that we write; any other is read as well.
const PREFIX_DECLARATION: &str = "xmlns:see";

/// The environment that the XML of a domain or network is labelled with, where it is.
///
/// `root` is the `<domain>` or `<network>`, as the user wrote it or as libvirt returns it.
pub fn label_in(root: &Element) -> Option<String> {
    let metadata = root.child("metadata")?;
    metadata
        .children()
        .find(|child| is_label(child, &[metadata, root]))
        .and_then(|label| label.attribute("id"))
        .map(str::to_owned)
}

/// Writes the label, in place of those that are there.
pub(super) fn set_label(root: &mut Element, environment: &str) {
    let label = Element::new("see:environment")
        .with(PREFIX_DECLARATION, LABEL_NAMESPACE)
        .with("id", environment);
    let labels: Vec<bool> = root.child("metadata").map_or_else(Vec::new, |metadata| {
        let children = metadata.children();
        children
            .map(|child| is_label(child, &[metadata, root]))
            .collect()
    });
    let mut labels = labels.into_iter();
    let metadata = root.child_or_insert("metadata");
    metadata.remove_children(|_| labels.next() == Some(true));
    metadata.append(label);
}

fn is_label(element: &Element, above: &[&Element]) -> bool {
    let declaration = match element.prefix() {
        "" => "xmlns".to_owned(),
        prefix => format!("xmlns:{prefix}"),
    };
    let namespace = std::iter::once(&element)
        .chain(above)
        .find_map(|scope| scope.attribute(&declaration));
    element.local_name() == "environment" && namespace == Some(LABEL_NAMESPACE)
}
