use ratatui::{Terminal, backend::TestBackend, style::Color};

use super::*;
use crate::observation::Code;
use crate::top::{
    input::Action,
    model::tests::{failing, listener, sample},
    sample::{Detail, IncidentSample, ListenerSample, LostSample, Peer, RowId, Sample},
};

const PLAIN: Look = Look {
    color: false,
    unicode: false,
};

fn full() -> Sample {
    let pooler = ListenerSample {
        depth: 16,
        limit: 16,
        waits: vec![(4_000_000, 98), (1_024_000_000, 2)],
        last_accept_ns: Some(98_000_000_000),
        ..listener(1, 6432, 5)
    };
    let mut sample = sample(
        1,
        vec![pooler, listener(2, 80, 1234)],
        vec![failing(Some(1), "", "accept.emfile", 30)],
    );
    sample.incidents = vec![IncidentSample {
        id: "i-1".to_owned(),
        severity: "critical".to_owned(),
        started: sample.time,
        statement: "pooler (pid 1) is out of file descriptors".to_owned(),
        silenced: false,
        reasons: vec![(Code::new("accept.emfile"), 30)],
        timeline: vec![(sample.time, "the first accept fails".to_owned())],
    }];
    sample
}

struct Shown {
    model: Model,
    ui: Ui,
}

impl Shown {
    fn new(sample: Sample) -> Self {
        let mut model = Model::default();
        model.take(sample);
        let mut ui = Ui::default();
        ui.arrange(&model);
        Self { model, ui }
    }

    fn act(mut self, actions: &[Action]) -> Self {
        for action in actions {
            self.ui.act(*action, &self.model);
        }
        self
    }

    fn buffer(&mut self, width: u16, height: u16, look: Look) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let scene = Scene {
            model: &self.model,
            now_ns: self.model.at_ns,
            look,
        };
        let ui = &mut self.ui;
        terminal.draw(|frame| draw(frame, scene, ui)).unwrap();
        terminal.backend().buffer().clone()
    }

    fn lines(&mut self, width: u16, height: u16) -> Vec<String> {
        let buffer = self.buffer(width, height, PLAIN);
        let cells = buffer.content.chunks(usize::from(width));
        cells
            .map(|line| {
                line.iter()
                    .map(ratatui::buffer::Cell::symbol)
                    .collect::<String>()
            })
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    fn has(&mut self, width: u16, height: u16, words: &[&str]) -> bool {
        let lines = self.lines(width, height);
        let found = lines
            .iter()
            .any(|line| words.iter().all(|word| line.contains(word)));
        if !found {
            eprintln!("{}", lines.join("\n"));
        }
        found
    }
}

#[test]
fn eighty_columns_have_what_matters() {
    let lines = Shown::new(full()).lines(80, 24);
    assert_eq!(
        lines[1],
        "2 listeners, accepts 1239/s, failures 30/s, 30 in 60 s, 30 in all"
    );
    assert_eq!(
        lines[2],
        "nothing lost                                                          sort worst"
    );
    assert_eq!(
        lines[3],
        "  LISTENER         OWNER        ACC/S FAIL/S REASON              QUEUE       FDS"
    );
    assert_eq!(
        lines[4],
        "! 127.0.0.1:6432   pooler[1]      5.0     30 accept.emfile ###   16/16     32/32"
    );
    assert_eq!(
        lines[5],
        "  tcp 127.0.0.1:80 web[2]        1234      0               ...   0/128    7/1024"
    );
    assert!(lines[23].starts_with("? help  q quit"));
}

#[test]
fn wide_screens_have_all_and_narrow_ones_what_matters_most() {
    let mut shown = Shown::new(full());
    assert!(shown.has(
        200,
        60,
        &[
            "tcp 127.0.0.1:6432",
            "pooler[1]",
            "4ms/1.0s",
            "3s",
            "shop.service"
        ]
    ));
    assert!(shown.has(40, 10, &["127.0.0.1:6432", "pooler[1]", "30"]));
    assert_eq!(shown.lines(20, 5)[0], "20x5: too small");
    for (width, height) in [(1, 1), (24, 6), (79, 7), (500, 3)] {
        shown.lines(width, height);
    }
}

#[test]
fn without_colours_there_are_none_and_with_them_sixteen() {
    let mut shown = Shown::new(full());
    let colours = |buffer: &Buffer| -> Vec<Color> {
        let both = buffer.content.iter().flat_map(|cell| [cell.fg, cell.bg]);
        both.filter(|color| *color != Color::Reset).collect()
    };
    assert_eq!(colours(&shown.buffer(200, 60, PLAIN)), []);
    let look = Look {
        color: true,
        ..PLAIN
    };
    let used = colours(&shown.buffer(200, 60, look));
    assert!(!used.is_empty());
    assert!(
        used.iter()
            .all(|color| !matches!(color, Color::Rgb(..) | Color::Indexed(_)))
    );
}

#[test]
fn what_was_lost_is_on_the_screen() {
    let mut sample = full();
    sample.lost = LostSample {
        map: 12,
        missed: Some(3),
        ..LostSample::default()
    };
    sample.unseen = vec!["SYN cookies".to_owned()];
    let mut shown = Shown::new(sample);
    let words = "LOST: 12 failures (map full), 3 runs of hooks (missed); not seen: SYN cookies";
    assert!(shown.has(120, 24, &[words]));
}

#[test]
fn more_of_a_row() {
    let mut sample = full();
    sample.detail = Some(Detail {
        row: Some(RowId::Listener(1)),
        advice: vec![
            (
                Code::new("accept.emfile"),
                vec!["now: prlimit --pid 1".to_owned()],
            ),
            (Code::new("queue.stalled"), vec!["now: look".to_owned()]),
        ],
        holdings: vec!["  held:    28 sockets".to_owned()],
        peers: vec![Peer {
            address: "10.0.0.7".to_owned(),
            open: 12,
            waiting: 3,
            longest_ns: 4_200_000_000,
        }],
        peers_complete: true,
    });
    let mut shown = Shown::new(sample).act(&[Action::Enter]);
    for words in [
        &["owner", "pooler[1]", "shop.service"][..],
        &["fds", "####################", "32/32"],
        &["queue", "16/16 wait"],
        &["failures", "accept.emfile EMFILE", "30 in 60 s, 30 in all"],
        &["prlimit --pid 1"],
        &["holds", "28 sockets"],
        &["10.0.0.7", "12 open, 3 wait for up to 4.2s"],
        &["60s fail", "#| most 30"],
    ] {
        assert!(shown.has(100, 50, words), "{words:?}");
    }
    assert!(!shown.has(100, 50, &["now: look"]), "a cause is known");
    let mut back = shown.act(&[Action::Back]);
    assert!(back.has(80, 24, &["LISTENER", "OWNER"]));
}

#[test]
fn the_other_views() {
    let mut shown = Shown::new(full()).act(&[Action::NextView]);
    assert!(shown.has(80, 24, &["accept.emfile", "30", "pooler[1] tcp"]));
    let mut listeners = shown.act(&[Action::Enter]);
    assert!(listeners.has(100, 24, &["filter accept.emfile"]));
    assert_eq!(listeners.ui.order, [RowId::Listener(1)]);
    let mut shown = Shown::new(full()).act(&[Action::Show(View::Incidents)]);
    assert!(shown.has(
        80,
        24,
        &["critical", "pooler (pid 1) is out of file descriptors"]
    ));
    assert!(shown.has(80, 24, &["the first accept fails"]));
    let mut shown = Shown::new(full()).act(&[Action::Help]);
    assert!(shown.has(80, 24, &["Ctrl-Z", "suspend"]));
    let mut shown = shown.act(&[Action::Page(1)]);
    assert!(shown.has(80, 24, &["not known, which is not 0"]));
}

#[test]
fn the_selected_row_stays_selected_and_on_the_screen() {
    let many: Vec<ListenerSample> = (1..=100)
        .map(|number: u32| listener(u64::from(number), 1000 + number, 0))
        .collect();
    let mut shown = Shown::new(sample(1, many, Vec::new())).act(&[Action::Last]);
    assert!(shown.has(80, 24, &["127.0.0.1:1100"]));
    assert_eq!(shown.ui.position(), 99);
    let mut shown = shown.act(&[Action::Page(-1), Action::Move(-1)]);
    shown.lines(80, 24);
    assert_eq!(shown.ui.position(), 99 - shown.ui.room - 1);
    let selected = shown.ui.selected.clone();
    let mut shown = shown.act(&[Action::Page(-100)]);
    assert_ne!(shown.ui.selected, selected);
    assert!(shown.has(80, 24, &["127.0.0.1:1001"]));
    assert_eq!(shown.ui.selected, None, "the first is whichever is first");
}

#[test]
fn texts_are_cut_to_columns() {
    assert_eq!(cut("abcdef", 4, PLAIN), "abc~");
    assert_eq!(cut_left("abcdef", 4, PLAIN), "~def");
    assert_eq!(cut("abcd", 4, PLAIN), "abcd");
    // Wide characters take two columns.
    assert_eq!(cut("猫猫猫", 4, PLAIN), "猫~");
    assert_eq!(cut_left("猫猫猫", 4, PLAIN), "~猫");
    assert_eq!(cut("abc", 0, PLAIN), "");
}
