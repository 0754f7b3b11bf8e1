use smoltcp::time::{Duration, Instant};
use tcp::{Binding, Event, Flags, Limits, Options, Promise, Segment, SeqNumber, Side, Splice, Timestamps};

use crate::input::Input;

/// A segment with any header and options: reading and writing agree, and what a splice changes it changes back, with the
/// checksum as right or wrong as it was.
pub fn options(data: &[u8]) {
    let mut input = Input(data);
    let (isn, server_isn) = (input.u32(), input.u32());
    read_and_write(input.0);
    let (there, back) = (spliced(isn, server_isn, false), spliced(server_isn, isn, false));
    for from in [Side::Client, Side::Server] {
        let Some(changed) = applied(&there, from, input.0) else { continue };
        let returned =
            applied(&back, from, &changed).expect("what was translated once can be translated again");
        assert_eq!(without_checksum(&returned), without_checksum(input.0));
        let _ = applied(&spliced(isn, server_isn, true), from, input.0);
    }
}

fn read_and_write(bytes: &[u8]) {
    let Ok(segment) = Segment::parse(bytes) else { return };
    let mut written = vec![0; segment.wire_len()];
    let length = segment.emit(1, 2, &mut written).expect("wire_len() is what emit() needs");
    assert_eq!(length, written.len());
    let again = Segment::parse(&written).expect("what was written can be read");
    let kept = again.options.sack.len();
    assert_eq!(again.options.sack[..], segment.options.sack[..kept]);
    let mut expected = segment;
    expected.options.sack.truncate(kept);
    assert_eq!(again, expected);
}

/// The translated segment, if it has a sound header. The sum over the segment, its checksum included, stays what it was:
/// so a right checksum stays right and a wrong one wrong, whatever the pseudo header (RFC 1624).
fn applied(splice: &Splice, from: Side, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut changed = bytes.to_vec();
    splice.apply(from, &mut changed).ok()?;
    assert_eq!(crate::sum(&[&changed]), crate::sum(&[bytes]));
    let header = usize::from(bytes[12] >> 4) * 4;
    assert_eq!(changed[header..], bytes[header..], "the payload is not the splice's");
    assert_eq!(changed[12..14], bytes[12..14], "nor are offset and flags");
    Some(changed)
}

/// One's complement has two zeros, between which a checksum may change.
fn without_checksum(bytes: &[u8]) -> Vec<u8> {
    [&bytes[..16], &bytes[18..]].concat()
}

/// The splice of a connection whose server side is numbered by `server_isn`, whose client side by `isn`.
fn spliced(isn: u32, server_isn: u32, timestamps: bool) -> Splice {
    let now = Instant::from_secs(1);
    let second = Duration::from_secs(1);
    let limits = Limits {
        handshake_timeout: second,
        first_payload_timeout: second,
        connect_timeout: second,
        replay_timeout: second,
        buffer: 1000,
    };
    let promise = Promise { mss: 1460, window_scale: None, sack: true, timestamps: true };
    let timestamps = timestamps.then_some(Timestamps { value: 5, echo: 0 });
    let mut options = Options { mss: Some(1400), sack_permitted: true, timestamps, ..Options::default() };
    let syn = Segment { flags: Flags::SYN, window: 1000, options: options.clone(), ..Segment::default() };
    let mut binding = Binding::accept(now, &syn, &promise, &limits, isn.into(), 77);
    let established = Segment {
        seq: SeqNumber::new(1),
        ack: SeqNumber::new(isn).advanced(1),
        flags: Flags::ACK,
        window: 1000,
        options: Options { timestamps, ..Options::default() },
        ..Segment::default()
    };
    assert_eq!(binding.handle_segment(now, Side::Client, &established), Event::Established);
    binding.connect(now, false, &[]);
    options.timestamps = timestamps;
    let answer = Segment {
        seq: server_isn.into(),
        ack: SeqNumber::new(1),
        flags: Flags::SYN | Flags::ACK,
        window: 1000,
        options,
        ..Segment::default()
    };
    binding.handle_segment(now, Side::Server, &answer);
    assert!(binding.is_spliced(), "a connection without bytes is spliced at once");
    binding.splice()
}
