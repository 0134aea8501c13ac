"""Every word that a page shows, in English and Japanese.

Pure data and look-up. A key that is missing is a defect and fails loudly (tests render every page in both languages);
a *word* that comes from outside, such as a state of a newer controller, falls back to itself. Sentences that the
controller writes are English, with the id of their rule beside them.
"""

from __future__ import annotations

from enum import StrEnum


class Language(StrEnum):
    """What the pages speak."""

    ENGLISH = "en"
    JAPANESE = "ja"

    @classmethod
    def preferred(cls, accept: str) -> Language:
        """Return the first language of an Accept-Language header that we speak, by its weights; English if none."""
        weighed: list[tuple[float, int, Language]] = []
        for place, part in enumerate(accept.split(",")[:20]):
            name, _, weight = part.strip().partition(";q=")
            code = name.strip().lower().partition("-")[0]
            if code in set(cls):
                weighed.append((-_weight(weight), place, cls(code)))
        return min(weighed)[2] if weighed else cls.ENGLISH


def _weight(text: str) -> float:
    try:
        return float(text) if text else 1.0
    except ValueError:
        return 0.0


class Texts:
    """Looks texts up in one language: `t("key", name=value)` in a template."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self._place = 0 if language is Language.ENGLISH else 1

    def __call__(self, key: str, **values: object) -> str:
        """Return the text of `key` with its values filled in."""
        return TEXTS[key][self._place].format(**values)

    def word(self, family: str, word: object) -> str:
        """Return our name for a word from outside, such as ("state", "paired"); the word itself if we have none."""
        found = TEXTS.get(f"{family}.{word}")
        return found[self._place] if found else str(word)


TEXTS: dict[str, tuple[str, str]] = {
    # --- frame
    "title": ("Futago · {pair}", "Futago · {pair}"),
    "live": ("live", "更新中"),
    "connecting": ("connecting…", "接続中…"),
    "line.switching": ("switching…", "切替中…"),
    "switching": ("Switching… this page goes on by itself.", "系を切り替えています… この画面は自動で続きます。"),
    "switching.elsewhere": (
        "{primary} serves now, and this address is not the one that follows it.",
        "現在は {primary} が稼働しています。この画面のアドレスは切替に追従しません。",
    ),
    "switching.open": ("Open the floating address", "フローティングIPで開く"),
    "resumed": (
        "Back after {seconds} s. {primary} serves.",
        "{seconds} 秒で再開しました。現在は {primary} が稼働中です。",
    ),
    "logout": ("Log out", "ログアウト"),
    "language.other": ("日本語", "English"),
    "api": ("API", "API"),
    # --- login
    "login.title": ("Log in", "ログイン"),
    "login.account": ("Account", "アカウント"),
    "login.password": ("Password", "パスワード"),
    "login.button": ("Log in", "ログイン"),
    "login.wrong": ("This account and password do not belong together.", "アカウントまたはパスワードが違います。"),
    "login.wait": (
        "Too many failed attempts. Try again in {seconds} s.",
        "失敗が続きました。{seconds} 秒後にお試しください。",
    ),
    # --- waiting, refusal
    "waiting.title": ("{member} does not serve now", "{member} は現在稼働していません"),
    "waiting.primary": ("{primary} is the primary.", "現用系は {primary} です。"),
    "waiting.between": ("The pair is between two primaries.", "系を切り替えているところです。"),
    "waiting.again": (
        "This page looks again every second and goes on by itself.",
        "この画面は毎秒確認し、再開したら自動で続きます。",
    ),
    "refusal.title": ("That did not work", "処理できませんでした"),
    "refusal.back": ("Back to the overview", "概要に戻る"),
    # --- pair: headline
    "headline.protected": ("Protected", "保護されています"),
    "headline.protected.more": (
        "Either machine may fail now: service goes on and nothing is lost.",
        "どちらの機械が故障しても、サービスは続き、何も失われません。",
    ),
    "headline.exposed": ("Serving, not protected", "稼働中、ただし保護されていません"),
    "headline.solo": ("Serving alone", "片系運転中"),
    "headline.down": ("Not serving", "サービス停止中"),
    "headline.silent": ("The controller does not answer", "コントローラが応答しません"),
    "headline.silent.more": (
        "The service itself goes on. Look at futago-controller.service on this member.",
        "サービスは続いています。このメンバーの futago-controller.service を確認してください。",
    ),
    "state.paired": ("paired", "二重化運転"),
    "state.solo": ("solo", "片系運転"),
    "state.blocked": ("blocked", "判断待ち"),
    "state.starting": ("starting", "起動中"),
    "state.switching": ("switching", "切替中"),
    "state.no-peer": ("no second member", "相手メンバーなし"),
    "epoch": ("epoch {epoch}", "世代 {epoch}"),
    "rule": ("rule {rule}", "規則 {rule}"),
    "serves": ("{member} serves", "{member} が稼働中"),
    "since": ("since", "開始"),
    "resolve": ("Resolve it with", "解消するコマンド"),
    "copy": ("copy", "コピー"),
    "copied": ("copied", "コピーしました"),
    "why": ("What is missing", "足りないもの"),
    # --- pair: members
    "role.primary": ("primary", "現用系"),
    "role.standby": ("standby", "待機系"),
    "role.none": ("no role", "役割なし"),
    "role.unknown": ("unknown", "不明"),
    "unreachable": ("out of reach", "応答なし"),
    "database": ("Database", "データベース"),
    "timeline": ("timeline {timeline}", "タイムライン {timeline}"),
    "position": ("WAL position", "WAL 位置"),
    "lag": ("Replay lag", "再生の遅れ"),
    "gate": ("Gate", "ゲート"),
    "gate.open": ("open", "開"),
    "gate.closed": ("closed", "閉"),
    "gate.unknown": ("unknown", "不明"),
    "floating": ("floating IP", "フローティングIP"),
    "fitness": ("Fit to serve", "稼働適性"),
    "yes": ("yes", "あり"),
    "no": ("no", "なし"),
    "pg.primary": ("primary", "プライマリ"),
    "pg.standby": ("standby", "スタンバイ"),
    "pg.stopped": ("stopped", "停止"),
    "pg.starting": ("starting", "起動中"),
    "pg.stopping": ("stopping", "停止処理中"),
    "pg.absent": ("no data", "データなし"),
    "pg.died": ("died", "異常終了"),
    "pg.hung": ("hanging", "無応答"),
    "pg.unknown": ("unknown", "不明"),
    "fence": ("Power device", "電源制御装置"),
    "fence.none": ("none", "なし"),
    "fence.on": ("on", "電源 入"),
    "fence.off": ("off", "電源 切"),
    "fence.unknown": ("unknown", "不明"),
    "tested": ("tested {seconds} s ago", "{seconds} 秒前に確認"),
    "untested": ("not tested", "未確認"),
    # --- pair: between them
    "link.service": ("service network", "業務ネットワーク"),
    "link.heartbeat": ("heartbeat network", "専用ネットワーク"),
    "link.down": ("down", "断"),
    "replication": ("Replication", "レプリケーション"),
    "replication.sync": ("synchronous", "同期"),
    "replication.follows": ("follows, not yet counted", "追従中(同期前)"),
    "replication.off": ("off", "停止"),
    "journals": ("Journals", "受信ジャーナル"),
    "journals.complete": ("complete on both", "両系に揃っています"),
    "journals.incomplete": ("not complete", "揃っていません"),
    "vote": ("Third vote", "第三票"),
    "vote.none": ("none", "なし"),
    "vote.jury": ("jury", "陪審"),
    "vote.witness": ("witness", "立会人"),
    "vote.etcd": ("etcd", "etcd"),
    "vote.objectstore": ("object store", "オブジェクトストレージ"),
    "vote.knows": ("knows epoch {epoch}", "世代 {epoch} を認識"),
    "vote.behind": ("does not know the present view", "現在の構成を認識していません"),
    "vote.lost": ("does not answer", "応答がありません"),
    # --- pair: last switch
    "switch.title": ("Last switch", "直近の系切替"),
    "switch.never": ("No switch yet.", "系切替はまだありません。"),
    "switch.failover": ("failover", "障害による系切替"),
    "switch.switchover": ("switchover", "計画系切替"),
    "switch.solo": ("went solo", "片系運転へ移行"),
    "switch.paired": ("paired again", "二重化運転へ復帰"),
    "switch.from_fault": ("times from the last sign of life", "最後の生存確認からの時間"),
    "switch.from_request": ("times from the request", "要求からの時間"),
    "step.detected": ("detected", "検知"),
    "step.won": ("vote won", "票を獲得"),
    "step.fenced": ("fenced", "強制停止"),
    "step.promoted": ("promoted", "昇格"),
    "step.gate": ("gate open", "ゲート開放"),
    "step.address": ("address moved", "アドレス移動"),
    "step.outward": ("outward effects", "外部動作の再開"),
    "recovery.title": ("Recovery", "復旧"),
    "recovery.running": ("Recovery is running", "復旧を実行中"),
    "rung.follow": ("follow the stream", "追従"),
    "rung.rewind": ("rewind", "巻き戻し"),
    "rung.basebackup": ("copy the database", "全体複製"),
    "rung.empty": ("from an empty disk", "空のディスクから"),
    "rung.wait": ("wait", "待機"),
    "rung.power-on": ("power on", "電源投入"),
    "rung.add": ("add", "組み入れ"),
    # --- the plan of a recovery
    "plan.asking": ("Asking both members…", "両メンバーに確認しています…"),
    "plan.none": ("Nothing has to be recovered.", "復旧の必要はありません。"),
    "plan.wrong": ("What is wrong", "現在の問題"),
    "plan.steps": ("What will be done", "実行する手順"),
    "plan.checks": ("What was checked", "事前確認"),
    "plan.refused": ("It cannot begin:", "開始できません:"),
    "plan.bytes": ("up to {bytes}", "最大 {bytes}"),
    "plan.seconds": ("about {seconds} s", "約 {seconds} 秒"),
    "plan.destructive": ("replaces data", "既存データを置換"),
    "check.room": ("room on the data volume", "データ領域の空き"),
    "check.data volume": ("data volume", "データ領域"),
    "check.disk": ("disk", "ディスク"),
    "check.system disk": ("system disk", "システムディスク"),
    "check.clock": ("clock", "時刻"),
    "check.version": ("version", "バージョン"),
    "check.database version": ("database version", "データベースのバージョン"),
    "check.network": ("network", "ネットワーク"),
    "check.fence": ("power device", "電源制御装置"),
    "check.third vote": ("third vote", "第三票"),
    "check.maintenance": ("maintenance", "保守中"),
    # --- maintenance, tests, explanations
    "maintenance.present": (
        "Maintenance is on: nothing is switched unasked.",
        "保守中です。自動では何も切り替わりません。",
    ),
    "act.maintenance": ("Maintenance…", "保守開始…"),
    "act.maintenance.title": ("Begin maintenance", "保守を開始"),
    "act.maintenance.text": (
        "Nobody takes over, hands over or powers the other member off or on unasked, until you end it. If the standby"
        " goes away, the primary goes on alone. If the primary goes away, the service stops until it is back or the"
        " maintenance ends. Switchover and recovery work as always.",
        "終了するまで、自動での系切替や電源操作を行いません。待機系が停止しても現用系は単独で稼働を続けます。現用系が"
        "停止すると、復帰するか保守を終了するまでサービスは止まります。系切替と復旧の操作は通常どおり使えます。",
    ),
    "act.maintenance.go": ("Begin maintenance", "保守を開始する"),
    "act.maintenance.end": ("End maintenance…", "保守終了…"),
    "act.maintenance.end.title": ("End maintenance", "保守を終了"),
    "act.maintenance.end.text": (
        "The pair acts by itself again from now on: if a member is away at this moment, the other one may take over at"
        " once.",
        "以後は自動で動作します。この時点で応答のないメンバーがあれば、直ちに系切替が起こることがあります。",
    ),
    "act.maintenance.end.go": ("End maintenance", "保守を終了する"),
    "act.fencetest": ("Test power devices…", "電源制御装置の確認…"),
    "act.fencetest.title": ("Test the power devices", "電源制御装置の確認"),
    "act.fencetest.text": (
        "Both members ask every power device for its state, with the real account. Nothing is switched on or off.",
        "両メンバーから全ての電源制御装置に実際のアカウントで状態を問い合わせます。電源の入切は行いません。",
    ),
    "act.fencetest.go": ("Test now", "確認する"),
    "fencetest.passed": ("Every device answered as it should.", "全ての装置が正しく応答しました。"),
    "fencetest.failed": ("At least one test failed.", "失敗した確認があります。"),
    "fencetest.row": ("{asker} asks for {member}:", "{asker} から {member}:"),
    "act.explain": ("What if…", "もし障害が…"),
    "act.explain.title": ("Why is it so, and what if something fails now", "現在の理由と、障害時の動作"),
    "act.close": ("Close", "閉じる"),
    "explain.choose": ("What fails", "想定する障害"),
    "explain.why": ("Why is the pair in this state?", "なぜ現在の状態なのか"),
    "explain.pause": ("writes pause for about {seconds} s", "書き込み停止 約 {seconds} 秒"),
    "outcome.goes-on": ("The service goes on; nobody notices.", "サービスは続き、影響はありません。"),
    "outcome.pauses": ("Writes pause, the same member goes on.", "書き込みが一時止まり、同じメンバーが続けます。"),
    "outcome.switches": ("The other member takes over.", "もう一方のメンバーが引き継ぎます。"),
    "outcome.stops": ("The service stops until somebody acts.", "対処するまでサービスは停止します。"),
    "outcome.does-not-apply": ("This cannot happen here.", "この構成では起こりません。"),
    "failure.primary-power": ("The primary loses its power", "現用系の電源断"),
    "failure.standby-power": ("The standby loses its power", "待機系の電源断"),
    "failure.both-power": ("Both lose their power", "両系の電源断"),
    "failure.peer-network": ("The networks between the members break", "メンバー間の全ネットワーク断"),
    "failure.primary-network": ("The primary loses all its networks", "現用系の全ネットワーク断"),
    "failure.heartbeat-network": ("The heartbeat network breaks", "専用ネットワーク断"),
    "failure.third-vote": ("The third vote is lost", "第三票の喪失"),
    "failure.primary-fence": ("The primary's power device dies", "現用系の電源制御装置の故障"),
    "failure.standby-fence": ("The standby's power device dies", "待機系の電源制御装置の故障"),
    "failure.postgresql": ("The primary's database dies", "現用系のデータベース停止"),
    "failure.manager": ("The manager dies", "マネージャの停止"),
    "failure.controller": ("The primary's controller dies", "現用系コントローラの停止"),
    "failure.primary-disk": ("The primary's data disk fails", "現用系データディスクの故障"),
    "failure.standby-disk": ("The standby's data disk fails", "待機系データディスクの故障"),
    "operation.switchover": ("Switchover", "系切替"),
    "operation.recover": ("Recovery", "復旧"),
    "operation.state.running": ("running", "実行中"),
    "operation.state.done": ("done", "完了"),
    "operation.state.refused": ("refused", "拒否"),
    "operation.state.unknown": ("outcome unknown", "結果不明"),
    # --- actions
    "act.switchover": ("Switch over…", "系切替…"),
    "act.switchover.title": ("Switch over to {target}", "{target} へ系切替"),
    "act.switchover.text": (
        "{target} becomes the primary and takes the floating IP. Writes pause for about half a second. Running jobs go"
        " on, nothing is received twice or lost, and this page follows by itself. It is refused, without harm, if"
        " {target} is not in sync.",
        "{target} が現用系になり、フローティングIPを引き継ぎます。書き込みは約0.5秒止まります。実行中のジョブは続き、"
        "受信の欠落も重複もなく、この画面も自動で追従します。{target} が同期していなければ、何も変えずに拒否されます。",
    ),
    "act.switchover.go": ("Switch over now", "今すぐ切り替える"),
    "act.switchover.unable": ("Needs two members in sync.", "両系が同期しているときに実行できます。"),
    "act.recover": ("Recover…", "復旧…"),
    "act.recover.title": ("Bring the pair back to two members", "二重化運転に戻す"),
    "act.recover.text": (
        "The missing member is brought back by the mildest way that works: it follows the stream, or its database is"
        " rewound, or it is copied anew. The service goes on meanwhile. What the missing member alone holds and never"
        " acknowledged is discarded.",
        "離れているメンバーを、可能なうちで最も軽い方法で戻します(追従、巻き戻し、全体複製の順)。その間もサービスは"
        "続きます。そのメンバーだけが持つ未確定のデータは破棄されます。",
    ),
    "act.recover.go": ("Recover now", "今すぐ復旧する"),
    "act.recover.unable": ("The pair is complete.", "すでに二重化運転中です。"),
    "act.cancel": ("Cancel", "やめる"),
    "act.asked": ("Asked. Progress appears here.", "要求しました。経過はここに表示されます。"),
    # --- hosts
    "hosts.title": ("Hosts", "ホスト"),
    "hosts.none": (
        "No hosts yet. Define some: futago apply -f hosts.yaml",
        "ホストがありません。futago apply -f hosts.yaml で定義できます。",
    ),
    "hosts.agent": ("agent", "エージェント"),
    "hosts.unregistered": ("unregistered", "未登録"),
    "hosts.monitors": ("{count} monitors", "監視 {count} 件"),
    "status.ok": ("ok", "正常"),
    "status.warning": ("warning", "警告"),
    "status.critical": ("critical", "危険"),
    "status.unknown": ("unknown", "不明"),
    "status.none": ("not monitored", "監視なし"),
    # --- events
    "events.title": ("Events", "イベント"),
    "events.none": ("No events.", "イベントはありません。"),
    "events.time": ("Time", "時刻"),
    "events.priority": ("Priority", "重要度"),
    "events.source": ("Source", "発生元"),
    "events.host": ("Host", "ホスト"),
    "events.monitor": ("Monitor", "監視項目"),
    "events.message": ("Message", "メッセージ"),
    "events.all": ("all", "すべて"),
    "events.text": ("Text in the message", "本文を検索"),
    # --- messages
    "messages.title": ("Messages", "受信メッセージ"),
    "messages.overview": ("Overview", "概要"),
    "messages.kind": ("Kind", "種別"),
    "messages.text": ("Parts of the text", "本文の一部"),
    "messages.search": ("Search", "検索"),
    "messages.live": ("Live", "ライブ表示"),
    "messages.none": (
        'Nothing found. Messages are kept if a monitor says keep: true, or intake.toml says keep = "all".',
        '見つかりません。監視項目に keep: true、または intake.toml に keep = "all" があるものが保存されます。',
    ),
    "messages.older": ("Older", "さらに古いもの"),
    "messages.kept": ("{count} messages are kept, {size}.", "保存済み {count} 件、{size}。"),
    "messages.skipped": ("about %n left out: too many to show", "多すぎるため約 %n 件を省略しました"),
    "priority.info": ("info", "情報"),
    "priority.warning": ("warning", "警告"),
    "priority.critical": ("critical", "危険"),
    "priority.unknown": ("unknown", "不明"),
    "source.message": ("message", "メッセージ"),
    "source.monitor": ("monitor", "監視"),
    "source.job": ("job", "ジョブ"),
    "source.api": ("API", "API"),
    "source.pair": ("pair", "ペア"),
    # --- runs
    "runs.title": ("Job runs", "ジョブ実行"),
    "runs.none": (
        "No runs yet. Start one here, or: futago job run NET",
        "実行はまだありません。ここから、または futago job run NET で開始できます。",
    ),
    "runs.jobs": ("{count} jobs", "ジョブ {count} 件"),
    "runs.run": ("Run {session} of {net}", "{net} の実行 {session}"),
    "runs.job": ("Job", "ジョブ"),
    "runs.state": ("State", "状態"),
    "runs.exit": ("Exit", "終了値"),
    "runs.started": ("Started", "開始"),
    "runs.took": ("Took", "所要"),
    "runs.output": ("Output", "出力"),
    "runs.unfold": ("Show what is in {net}", "{net} の内容を表示"),
    "runs.whole": ("All of it", "全文"),
    "runs.earlier": ("← Earlier", "← 前へ"),
    "runs.later": ("Later →", "次へ →"),
    "runs.close": ("Close", "閉じる"),
    "runs.operate": ("Operate…", "操作…"),
    "runs.operate.on": ("Operate on {job}", "{job} を操作"),
    "runs.whole_run": ("The whole run {session}", "実行 {session} 全体"),
    "runs.done": ("Done.", "実行しました。"),
    "runs.asked": (
        "Asked for; it will be decided as soon as job control goes on.",
        "要求しました。ジョブ制御が再開しだい処理されます。",
    ),
    "runs.note": ("Why (goes into the audit trail)", "理由 (監査証跡に残ります)"),
    "runs.nothing": ("Nothing can be done to it now.", "現在できる操作はありません。"),
    "runs.rerun": ("Run again what failed", "異常終了分を再実行"),
    "runs.rerun.from": ("Run again from here", "ここから再実行"),
    "start.button": ("Start a net…", "ジョブネットを開始…"),
    "start.title": ("Start a job net", "ジョブネットの開始"),
    "start.search": ("Part of a name", "名前の一部"),
    "start.none": ("There is no such job net that you may start.", "開始できるジョブネットがありません。"),
    "start.more": (
        "There are more: search for a part of the name.",
        "ほかにもあります。名前の一部で検索してください。",
    ),
    "start.others": ("Other nets", "ほかのジョブネット"),
    "start.of": ("Start {net}", "{net} の開始"),
    "start.required": ("required", "必須"),
    "start.no_parameters": ("It has no parameters.", "パラメータはありません。"),
    "start.go": ("Start", "開始"),
    "start.unanswered": (
        "There was no answer: it may have been started. Press again: it is started once.",
        "応答がありません。開始された可能性があります。もう一度押しても、開始は一回だけです。",
    ),
    "start.repeated": (
        "This form had started this run before.",
        "この実行は、同じフォームからすでに開始されていました。",
    ),
    "start.flag.true": ("yes", "はい"),
    "start.flag.false": ("no", "いいえ"),
    "runs.op.hold": ("Hold", "保留"),
    "runs.op.release": ("Release", "保留解除"),
    "runs.op.skip": ("Skip", "スキップ"),
    "runs.op.stop": ("Stop", "停止"),
    "runs.op.suspend": ("Suspend", "中断"),
    "runs.op.resume": ("Resume", "再開"),
    "runs.op.force": ("Start now", "強制開始"),
    "runs.op.end": ("Set its end", "終了状態を設定"),
    "runs.op.approve": ("Approve", "承認"),
    "runs.op.reject": ("Reject", "却下"),
    "job.waiting": ("waiting", "待機"),
    "job.ordered": ("ordered", "指示済み"),
    "job.running": ("running", "実行中"),
    "job.normal": ("normal end", "正常終了"),
    "job.warning": ("warning", "警告終了"),
    "job.abnormal": ("abnormal end", "異常終了"),
    "job.not-run": ("not run", "未実行"),
    "job.starting": ("starting", "開始待ち"),
    "job.unknown": ("unknown", "不明"),
}
