#![allow(clippy::unwrap_used, reason = "x")]
mod support;
use moat_sandbox::*;
use std::time::*;
use support::*;
fn med(mut v: Vec<Duration>) -> (Duration, Duration, Duration) {
    v.sort();
    (v[0], v[v.len() / 2], v[v.len() * 99 / 100])
}
#[test]
fn bench() {
    let e = Engine::new().unwrap();
    let m = wat(&e, "empty");
    let i = Input::default();
    let b = plenty();
    let mut v = vec![];
    for _ in 0..5000 {
        let t = Instant::now();
        let o = e.run(&m, &b, &i, None).unwrap();
        assert_eq!(o.status, Status::Ok);
        v.push(t.elapsed());
    }
    println!("empty {:?}", med(v));
    let rb = std::fs::read(guests().join("../../python/moat/_demo/reader.wasm")).unwrap();
    let t = Instant::now();
    let r = e.load(&rb, None).unwrap();
    println!("load reader {:?}", t.elapsed());
    let d = tempfile::tempdir().unwrap();
    let root = d.path().canonicalize().unwrap();
    let text = "the quick brown fox jumps over the lazy dog\n".repeat(20000);
    std::fs::write(root.join("a"), &text).unwrap();
    let b = Bounds {
        dirs: vec![Dir {
            path: root.clone(),
            read: true,
            write: false,
        }],
        ..plenty()
    };
    let i = Input {
        args: vec![
            "reader".into(),
            "zebra".into(),
            root.join("a").to_str().unwrap().into(),
            "/etc/passwd".into(),
        ],
        ..Default::default()
    };
    let mut v = vec![];
    for _ in 0..50 {
        let t = Instant::now();
        let o = e.run(&r, &b, &i, None).unwrap();
        v.push(t.elapsed());
        if v.len() == 50 {
            println!(
                "{:?} fuel {} mem {} {} {}",
                o.status,
                o.fuel_used,
                o.memory_peak,
                String::from_utf8_lossy(&o.stdout),
                String::from_utf8_lossy(&o.stderr)
            );
        }
    }
    println!("reader {} bytes {:?}", text.len(), med(v));
    std::fs::write(root.join("b"), "one line\n").unwrap();
    let i = Input {
        args: vec![
            "reader".into(),
            "zebra".into(),
            root.join("b").to_str().unwrap().into(),
        ],
        ..Default::default()
    };
    let mut v = vec![];
    for _ in 0..2000 {
        let t = Instant::now();
        e.run(&r, &b, &i, None).unwrap();
        v.push(t.elapsed());
    }
    println!("reader small {:?}", med(v));
    let i = Input {
        args: vec!["reader".into(), "--spin".into()],
        ..Default::default()
    };
    let o = e
        .run(
            &r,
            &Bounds {
                fuel: 5_000_000,
                ..b.clone()
            },
            &i,
            None,
        )
        .unwrap();
    println!("{:?} {:?}", o.status, o.elapsed);
    let o = e
        .run(
            &r,
            &Bounds {
                time: Duration::from_millis(300),
                ..b
            },
            &i,
            None,
        )
        .unwrap();
    println!("{:?} {:?} {}", o.status, o.elapsed, o.fuel_used);
}
