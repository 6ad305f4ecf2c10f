//! What is sent: datagrams that the usual services answer.

/// A question for the port's usual service, or a datagram of no meaning.
pub(super) fn for_port(port: u16) -> Vec<u8> {
    match port {
        53 | 5353 => dns("see.invalid").unwrap_or_default(),
        // rpcbind: call 1, version 2 of program 100000, its procedure 0, no credentials.
        111 => [1u32, 0, 2, 100_000, 2, 0, 0, 0, 0, 0]
            .iter()
            .flat_map(|word| word.to_be_bytes())
            .collect(),
        // NTP: a client of version 3.
        123 => {
            let mut question = vec![0; 48];
            question[0] = 0x1B;
            question
        }
        1900 => b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\n\
                  MX: 1\r\nST: ssdp:all\r\n\r\n"
            .to_vec(),
        _ => b"see probe\n".to_vec(),
    }
}

/// A question for the IPv4 address of a name; nothing when it is not one.
pub(super) fn dns(name: &str) -> Option<Vec<u8>> {
    // A number of its own, recursion wanted, one question.
    let mut question = vec![0x5E, 0xE0, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok()?;
        if !(1..=63).contains(&length) {
            return None;
        }
        question.push(length);
        question.extend_from_slice(label.as_bytes());
    }
    // The end of the name, type A, class IN.
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    // The header, and a name of at most 255 bytes.
    (question.len() <= 12 + 255 + 4).then_some(question)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_labels_behind_their_lengths() {
        let question = dns("a.example").expect("a name");
        assert_eq!(question[12..], *b"\x01a\x07example\0\0\x01\0\x01");
        assert_eq!(dns("a.example."), Some(question));
    }

    #[test]
    fn what_is_no_name_is_not_asked_for() {
        let long = vec!["label"; 60].join(".");
        for name in ["", "a..b", &"x".repeat(64), &long] {
            assert_eq!(dns(name), None, "{name}");
        }
    }
}
