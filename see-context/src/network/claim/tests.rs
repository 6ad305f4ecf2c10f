//! What is taken, and who was quicker, over libvirt's test driver.

use super::*;

#[test]
fn device_names_start_with_the_identifier_and_differ_where_its_first_digits_do_not() {
    let ours = device_names("virbr-", "0123abcd-4567-4567-89ab-cdef01234567", 8);
    let others = device_names("virbr-", "0123abcd-1111-4567-89ab-cdef01234567", 8);
    assert_eq!(ours[0], "virbr-0123abcd");
    assert_eq!(ours[0], others[0]);
    assert_ne!(ours[1], others[1]);
    assert!(ours.iter().all(|name| name.len() <= 15), "{ours:?}");
}

#[test]
fn an_overlap_is_found_whichever_of_the_two_is_larger() {
    let subnet = |text: [u8; 4], prefix| Subnet::containing(text.into(), prefix).unwrap();
    let taken = |subnet| Taken {
        subnet,
        by: "a route of this host".to_owned(),
    };
    let (large, small) = (subnet([10, 1, 0, 0], 16), subnet([10, 1, 7, 0], 24));
    assert!(overlap(&[small], &[taken(large)]).is_some());
    assert!(overlap(&[large], &[taken(small)]).is_some());
    assert!(overlap(&[small], &[taken(subnet([10, 2, 0, 0], 16))]).is_none());
}

/// Counts the bridges that are about to be made.
#[derive(Default)]
struct Count(std::sync::atomic::AtomicU32);

#[async_trait]
impl Notes for Count {
    async fn write(&self, _: &Bridge) -> Result<()> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }
}

fn identifier_bridges() -> Vec<String> {
    device_names("virbr-", "0123abcd-4567-4567-89ab-cdef01234567", 8)
}

/// A daemon of the test's own, which has one network: `default`, in 192.168.122.0/24.
async fn daemon() -> Connection {
    const HOST: &str = "<node><network><name>default</name><bridge name='virbr0'/>
        <ip address='192.168.122.1' netmask='255.255.255.0'/></network></node>";
    // With a file each connection has a host of its own, and otherwise all of a process the same.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), HOST).unwrap();
    let uri = format!("test://{}", file.path().display());
    let connection = Connection::open(&uri, Duration::from_secs(10)).await;
    connection.unwrap()
}

fn draft<'a>(
    name: &'a str,
    xml: &'a NetworkXml,
    search: &'a [Search],
    notes: &'a Count,
) -> Draft<'a> {
    Draft {
        name,
        uuid: None,
        label: "a test",
        xml,
        bridges: identifier_bridges(),
        search,
        lend: &|subnet| Ok(Lent::Range(host(subnet, 2)?, host(subnet, 9)?)),
        local: false,
        notes,
    }
}

/// Starts a network of this XML in a free subnet, and gives the error and how often it was tried.
async fn refused(xml: &str, named: &str, connection: &Connection) -> (Error, u32) {
    let xml = NetworkXml::parse(xml).unwrap();
    let notes = Count::default();
    let search = [Search::private(24)];
    let owner = see_core::Stop::new();
    let draft = draft(named, &xml, &search, &notes);
    let started = start(&draft, connection, &owner.token(), None).await;
    (started.unwrap_err(), notes.0.into_inner())
}

#[tokio::test]
async fn an_error_of_libvirts_that_is_not_about_addresses_surfaces_at_once_as_itself() {
    let connection = daemon().await;
    let nonsense = "<network><forward mode='nonsense'/></network>";
    let (error, tries) = refused(nonsense, "new", &connection).await;
    assert_eq!(
        (error.kind(), tries),
        (ErrorKind::Unsupported, 1),
        "{error}"
    );
    let text = error.to_string();
    assert!(text.contains("nonsense"), "{text}");
    assert!(!text.contains("address"), "{text}");
    // The driver has a network of this name, which is about no address either.
    let (error, tries) = refused("<network/>", "default", &connection).await;
    assert_eq!(tries, 1, "{error}");
    assert!(error.to_string().contains("default"), "{error}");
}

#[tokio::test]
async fn the_subnet_of_a_network_that_is_only_defined_is_taken() {
    let connection = daemon().await;
    let default = connection.networks().await.unwrap().remove(0);
    default.destroy().await.unwrap();
    let inside = "<network><ip address='192.168.122.129' prefix='25'/></network>";
    let xml = NetworkXml::parse(inside).unwrap();
    let owner = see_core::Stop::new();
    let notes = Count::default();
    let draft = draft("new", &xml, &[], &notes);
    let error = start(&draft, &connection, &owner.token(), None).await;
    let text = error.unwrap_err().to_string();
    assert!(text.contains("the network default has"), "{text}");
}

/// The UUID of the network that is quicker.
const TAKEN: &str = "11111111-2222-4333-8444-555555555555";

/// Makes a network of its own when another one was about to start.
struct Quicker<'a>(&'a Connection);

#[async_trait]
impl Shutter for Quicker<'_> {
    async fn shut(&self, _: &str, subnet: Subnet) -> Result<()> {
        // What is closed here must not be open for a moment.
        let started = self.0.network("new").await;
        assert!(started.is_err_and(|error| error.is_no_network()));
        let address = host(subnet, 1)?;
        let xml = format!(
            "<network><name>quicker</name><uuid>{TAKEN}</uuid><ip address='{address}' prefix='16'/></network>"
        );
        // There is one already where this is asked again.
        let _ = self.0.create_network(&xml).await;
        Ok(())
    }
}

#[tokio::test]
async fn who_was_quicker_keeps_its_subnet_and_the_other_network_goes_or_moves() {
    let owner = see_core::Stop::new();
    let names = async |connection: &Connection| {
        let networks = connection.networks().await.unwrap();
        let mut names: Vec<_> = networks.iter().map(|one| one.name().to_owned()).collect();
        names.sort();
        names
    };
    let connection = daemon().await;
    let xml =
        NetworkXml::parse("<network><ip address='10.77.7.1' prefix='24'/></network>").unwrap();
    let notes = Count::default();
    let fixed = draft("new", &xml, &[], &notes);
    let started = start(
        &fixed,
        &connection,
        &owner.token(),
        Some(&Quicker(&connection)),
    )
    .await;
    let text = started.unwrap_err().to_string();
    assert!(text.contains("the network quicker has"), "{text}");
    assert_eq!(names(&connection).await, ["default", "quicker"]);

    let connection = daemon().await;
    let xml = NetworkXml::parse("<network/>").unwrap();
    let search = [Search::private(24)];
    let notes = Count::default();
    let moving = draft("new", &xml, &search, &notes);
    let started = start(
        &moving,
        &connection,
        &owner.token(),
        Some(&Quicker(&connection)),
    )
    .await;
    let subnets = NetworkXml::parse(&started.unwrap().network.xml().await.unwrap());
    let (own, _) = subnets.unwrap().subnets()[0];
    assert!(notes.0.into_inner() > 1);
    assert_eq!(names(&connection).await, ["default", "new", "quicker"]);
    let quicker = connection.networks().await.unwrap();
    let quicker = quicker.iter().find(|one| one.name() == "quicker").unwrap();
    let quicker = NetworkXml::parse(&quicker.xml().await.unwrap()).unwrap();
    let (address, prefix) = quicker.subnets()[0];
    let taken = Subnet::containing(address, prefix).unwrap();
    assert!(!taken.overlaps(Subnet::containing(own, 24).unwrap()));
}

#[tokio::test]
async fn a_network_that_libvirt_refuses_is_tried_elsewhere_where_its_subnet_is_taken_whatever_libvirt_says()
 {
    let connection = daemon().await;
    let xml = NetworkXml::parse("<network/>").unwrap();
    let search = [Search::private(24)];
    let notes = Count::default();
    let mut draft = draft("new", &xml, &search, &notes);
    // The driver refuses the second of two with one UUID, and tells of no address.
    draft.uuid = Some(TAKEN);
    let owner = see_core::Stop::new();
    let quicker = Quicker(&connection);
    let error = start(&draft, &connection, &owner.token(), Some(&quicker)).await;
    let text = error.unwrap_err().to_string();
    // At first the subnet was taken, too; then nothing was, and libvirt's error is the answer.
    assert_eq!(notes.0.into_inner(), 2, "{text}");
    assert!(text.contains(TAKEN), "{text}");
}

#[tokio::test]
async fn a_bridge_whose_name_a_device_has_is_not_asked_for() {
    let connection = daemon().await;
    let xml = NetworkXml::parse("<network/>").unwrap();
    let search = [Search::private(24)];
    let notes = Count::default();
    let mut local = draft("new", &xml, &search, &notes);
    local.local = true;
    // Every host has this device; the driver makes none, and refuses no name.
    local.bridges.insert(0, "lo".to_owned());
    let owner = see_core::Stop::new();
    let claimed = start(&local, &connection, &owner.token(), None)
        .await
        .unwrap();
    assert_eq!(claimed.bridge.name, identifier_bridges()[0]);
    local.bridges.truncate(1);
    let error = start(&local, &connection, &owner.token(), None)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("the bridge lo exists already"),
        "{error}"
    );
}

#[tokio::test]
async fn whoever_holds_the_turn_for_ever_blocks_nobody() {
    let owner = see_core::Stop::new();
    let stop = owner.token();
    let held = Turn::take(&stop, Duration::from_secs(60)).await.unwrap();
    assert!(held._socket.is_some());
    let out_of_turn = Turn::take(&stop, ASK * 3).await.unwrap();
    assert!(out_of_turn._socket.is_none());
    drop(held);
}
