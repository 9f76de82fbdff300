/** What the page says, in English and Chinese. `i18n.test.ts` checks that neither lacks anything. */

export type Language = 'en' | 'zh'

const en = {
  language: 'English',
  newChat: 'New chat',
  earlierChats: 'Earlier chats',
  untitled: 'Untitled',
  theme: { system: 'Theme: system', light: 'Theme: light', dark: 'Theme: dark' },
  reveal: {
    label: 'How answers come into view',
    off: 'At once',
    live: 'As they arrive',
    smooth: 'Evenly',
    typewriter: 'Typewriter',
  },
  greeting: 'What would you like to know?',
  question: 'Your question',
  placeholder: 'Ask anything',
  send: 'Send',
  stop: 'Stop',
  stopping: 'Stopping…',
  you: 'You',
  answer: 'Answer',
  thinking: 'Thinking',
  blocks: {
    copy: 'Copy',
    copied: 'Copied',
    refused: 'The browser forbids it',
    loadImage: (host: string) => `Load image from ${host}`,
    done: 'Done',
    open: 'To do',
  },
  leftOut: (count: string) => `Earlier messages left out for lack of room: ${count}`,
  jumpToEnd: 'Jump to the end',
  retry: 'Try again',
  carryOn: 'Continue',
  withdraw: 'Take back',
  reload: 'Reload',
  accessKey: 'Access key',
  signIn: 'Open',
  signInTitle: 'This server is locked',
  signInWhy:
    'Whoever runs it can give you a sign-in link or an access key. This browser remembers it.',
  signInByLink: 'This link signs you in, once, on this browser.',
  loadingChat: 'Opening the chat',
  phase: {
    sending: 'Sending',
    connecting: 'Waiting for the engine',
    downloading: 'Downloading the model',
    loading: 'Loading the model',
    given_up: 'The engine does not start',
    next: 'Next in line',
    queued: (place: string) => `Number ${place} in line`,
    reading: 'Reading the conversation',
    unwritable: 'The server cannot save: the answer waits',
    starting: 'Starting',
    generating: 'Writing',
  },
  askKeeper: 'Whoever runs this server finds more on its console. It says:',
  waitsForModel: 'Questions can be asked already; they are answered as soon as it is there.',
  ofBytes: (done: string, total: string) => `${done} of ${total}`,
  perSecond: (bytes: string) => `${bytes}/s`,
  timeLeft: (time: string) => `${time} left`,
  lost: 'Connection lost. The answer goes on; reconnecting…',
  lostIdle: 'The server does not answer. Reconnecting…',
  notSent: 'The server does not answer. The question is sent as soon as it does.',
  ended: {
    stopped: 'Stopped',
    length: 'Cut at the length limit',
    failed: 'The answer broke off',
  },
  announce: { started: 'The answer begins', done: 'The answer is complete' },
  talk: {
    complete: 'Complete',
    copyMessage: 'Copy as Markdown',
    edit: 'Edit',
    editLabel: 'Your question in other words',
    cancel: 'Cancel',
    regenerate: 'Answer again',
    versions: 'Versions',
    version: (number: string, count: string) => `Version ${number} of ${count}`,
    earlier: 'Earlier version',
    later: 'Later version',
    showAll: 'Show all',
    showLess: 'Show less',
    waits: 'Sent when the answer above is there',
    held: 'The answer above broke off, so this question has not been sent.',
    release: 'Send all the same',
    tryContinue: 'Continue goes on where it stopped; Try again asks for a new answer.',
    tryAgain: 'Try again asks for a new answer.',
    attach: 'Add text files',
    drop: 'Drop text files anywhere',
    dismiss: 'Dismiss',
    notText: (name: string) => `${name} is not a text file in UTF-8.`,
    tooLarge: (name: string, limit: string) =>
      `${name} is too large: files may have ${limit} in all.`,
    unreadable: (name: string) => `${name} cannot be read.`,
  },
  problem: {
    offline: 'The server does not answer.',
    queue_full: 'Too many people are waiting. Try again in a moment.',
    engine_given_up:
      'The engine does not start. Ask whoever runs this server to look at its console.',
    engine_lost: 'The engine died and cannot go on by itself.',
    engine_crashed: 'The engine died at this prompt again and again.',
    engine_failed: 'The engine could not go on.',
    model_changed: 'The model was exchanged in mid-answer.',
    engine_unreachable: 'No engine has answered for too long. Ask whoever runs this server.',
    prompt_too_long: 'The conversation is longer than the model can read. Start a new chat.',
    disk_full: 'The disk of the server is full.',
    log_unwritable: 'The server cannot save anything. Its disk may be full.',
    run_active: 'Another answer is being written in this chat.',
    unknown_chat: 'This chat does not exist, or not any more.',
    unknown_run: 'The server does not know this answer any more.',
    unknown_message: 'The server does not know this message any more.',
    nothing_to_continue: 'There is nothing to go on from. Ask again.',
    cannot_continue: 'The model cannot go on from here. Ask again.',
    unauthorized: 'The key was not accepted.',
    link_used_up: 'That link has been used, or is too old. Ask for another one.',
    too_many_attempts: 'Too many wrong keys came from here. Try again in a moment.',
    too_many_runs: 'You have as many answers under way as you may. Wait for one of them.',
    too_many_requests: 'You have asked too often in this minute. Try again in a moment.',
    too_many_tokens: 'You have used up what you may for now. Try again in a moment.',
    body_too_large: 'That is longer than the server takes.',
    other: (message: string) => `Something went wrong: ${message}`,
  },
}

export type Words = typeof en

const zh: Words = {
  language: '中文',
  newChat: '新对话',
  earlierChats: '以前的对话',
  untitled: '无标题',
  theme: { system: '主题：跟随系统', light: '主题：浅色', dark: '主题：深色' },
  reveal: {
    label: '回答的显示方式',
    off: '立即显示',
    live: '随到随显',
    smooth: '匀速显示',
    typewriter: '打字机',
  },
  greeting: '想了解些什么？',
  question: '你的问题',
  placeholder: '问点什么',
  send: '发送',
  stop: '停止',
  stopping: '正在停止…',
  you: '你',
  answer: '回答',
  thinking: '思考',
  blocks: {
    copy: '复制',
    copied: '已复制',
    refused: '浏览器不允许复制',
    loadImage: (host) => `从 ${host} 加载图片`,
    done: '已完成',
    open: '未完成',
  },
  leftOut: (count) => `篇幅所限，较早的 ${count} 条消息未被读取`,
  jumpToEnd: '回到底部',
  retry: '重试',
  carryOn: '继续',
  withdraw: '撤回',
  reload: '重新加载',
  accessKey: '访问密钥',
  signIn: '进入',
  signInTitle: '此服务器需要密钥',
  signInWhy: '请向服务器管理员索取登录链接或访问密钥。此浏览器会记住登录状态。',
  signInByLink: '此链接可在这个浏览器中登录，只能使用一次。',
  loadingChat: '正在打开对话',
  phase: {
    sending: '正在发送',
    connecting: '正在等待引擎',
    downloading: '正在下载模型',
    loading: '正在加载模型',
    given_up: '引擎无法启动',
    next: '下一个就是你',
    queued: (place) => `排队中，第 ${place} 位`,
    reading: '正在阅读对话',
    unwritable: '服务器无法保存，回答暂停',
    starting: '即将开始',
    generating: '正在书写',
  },
  askKeeper: '请联系服务器管理员查看控制台。服务器的说明：',
  waitsForModel: '现在就可以提问，模型就绪后会立即回答。',
  ofBytes: (done, total) => `${done} / ${total}`,
  perSecond: (bytes) => `${bytes}/秒`,
  timeLeft: (time) => `还需 ${time}`,
  lost: '连接已断开，回答仍在继续，正在重新连接…',
  lostIdle: '服务器没有响应，正在重新连接…',
  notSent: '服务器没有响应，恢复后会立即发送问题。',
  ended: {
    stopped: '已停止',
    length: '已达到长度上限',
    failed: '回答中断了',
  },
  announce: { started: '开始回答', done: '回答完毕' },
  talk: {
    complete: '已完成',
    copyMessage: '复制 Markdown 原文',
    edit: '修改',
    editLabel: '修改问题',
    cancel: '取消',
    regenerate: '重新回答',
    versions: '版本',
    version: (number, count) => `第 ${number} 版，共 ${count} 版`,
    earlier: '上一版',
    later: '下一版',
    showAll: '展开全部',
    showLess: '收起',
    waits: '上面的回答结束后发送',
    held: '上面的回答中断了，这个问题尚未发送。',
    release: '仍然发送',
    tryContinue: '“继续”会从中断处接着写，“重试”会重新回答。',
    tryAgain: '“重试”会重新回答。',
    attach: '添加文本文件',
    drop: '将文本文件拖放到页面任意位置',
    dismiss: '关闭提示',
    notText: (name) => `${name} 不是 UTF-8 文本文件。`,
    tooLarge: (name, limit) => `${name} 太大：文件总计不得超过 ${limit}。`,
    unreadable: (name) => `无法读取 ${name}。`,
  },
  problem: {
    offline: '服务器没有响应。',
    queue_full: '排队的人太多，请稍后再试。',
    engine_given_up: '引擎无法启动，请联系服务器管理员查看控制台。',
    engine_lost: '引擎意外退出，无法自动继续。',
    engine_crashed: '引擎在这个问题上反复崩溃。',
    engine_failed: '引擎无法继续。',
    model_changed: '回答途中模型被更换了。',
    engine_unreachable: '引擎太久没有响应，请联系服务器管理员。',
    prompt_too_long: '对话长度超出模型上限，请开始新对话。',
    disk_full: '服务器磁盘已满。',
    log_unwritable: '服务器无法保存内容，磁盘可能已满。',
    run_active: '这个对话中有另一个回答正在进行。',
    unknown_chat: '这个对话不存在，或已被删除。',
    unknown_run: '服务器已找不到这个回答。',
    unknown_message: '服务器已找不到这条消息。',
    nothing_to_continue: '没有可以继续的内容，请重新提问。',
    cannot_continue: '模型无法从这里继续，请重新提问。',
    unauthorized: '密钥不正确。',
    link_used_up: '这个链接已用过或已过期，请另外索取一个。',
    too_many_attempts: '密钥输错次数过多，请稍后再试。',
    too_many_runs: '你同时进行的回答已达上限，请等其中一个结束。',
    too_many_requests: '你这一分钟内提问过多，请稍后再试。',
    too_many_tokens: '你的用量暂时已达上限，请稍后再试。',
    body_too_large: '内容超出了服务器的长度限制。',
    other: (message) => `出错了：${message}`,
  },
}

export const words: Readonly<Record<Language, Words>> = { en, zh }

/** The language to start with: the browser's if it is one of ours. */
export function preferred(languages: readonly string[]): Language {
  const known = languages.map((tag) => tag.toLowerCase().split('-')[0])
  return known.find((tag) => tag === 'en' || tag === 'zh') ?? 'en'
}

/** What to say about a failure: our sentence for its code, else the server's. */
export function problemText(words: Words, failure: { code: string; message: string }): string {
  const known: Readonly<Record<string, unknown>> = words.problem
  const sentence = known[failure.code]
  return typeof sentence === 'string' ? sentence : words.problem.other(failure.message)
}

const SAMPLE_CHARS = 400
const FENCED = /^ {0,3}(`{3,}|~{3,})[^]*?(?:^ {0,3}\1|$(?![^]))/gmu
/** A word of Latin script weighs as much as one character of the others; kana and hangul are never Chinese. */
const SCRIPTS = [
  ['ja', /[\p{Script=Hiragana}\p{Script=Katakana}]/gu],
  ['ko', /\p{Script=Hangul}/gu],
  ['zh', /\p{Script=Han}/gu],
  ['en', /\p{Script=Latin}+/gu],
] as const

/**
 * The language of a text, for fonts, line breaking and screen readers; null where it is not clear. Fenced code is
 * not counted: its words are English whatever is said about it.
 */
export function languageOf(text: string): (typeof SCRIPTS)[number][0] | null {
  const prose = text.slice(0, 4 * SAMPLE_CHARS).replace(FENCED, '')
  const sample = prose.slice(0, SAMPLE_CHARS)
  const [kana = 0, hangul = 0, han = 0, latin = 0] = SCRIPTS.map(
    ([, script]) => sample.match(script)?.length ?? 0,
  )
  if (kana + hangul + han + latin === 0) return null
  if (latin >= kana + hangul + han) return 'en'
  // Japanese has as many Han characters as kana, and Chinese quotes a word of it at most.
  if (kana > 0.2 * han) return 'ja'
  return hangul > han ? 'ko' : 'zh'
}

export class Numbers {
  readonly #percent: Intl.NumberFormat
  readonly #kilo: Intl.NumberFormat
  readonly #mega: Intl.NumberFormat
  readonly #plain: Intl.NumberFormat
  readonly #seconds: Intl.NumberFormat
  readonly #minutes: Intl.NumberFormat

  constructor(language: Language) {
    const unit = (name: string, digits = 0): Intl.NumberFormat =>
      new Intl.NumberFormat(language, {
        style: 'unit',
        unit: name,
        unitDisplay: 'short',
        maximumFractionDigits: digits,
      })
    this.#percent = new Intl.NumberFormat(language, { style: 'percent' })
    this.#kilo = unit('kilobyte')
    this.#mega = unit('megabyte', 1)
    this.#plain = new Intl.NumberFormat(language)
    this.#seconds = unit('second')
    this.#minutes = unit('minute')
  }

  plain(value: number): string {
    return this.#plain.format(value)
  }

  /** Never 100 % before it is all there. */
  share(value: number): string {
    return this.#percent.format(Math.floor(value * 100) / 100)
  }

  bytes(value: number): string {
    return value < 1e6 ? this.#kilo.format(value / 1e3) : this.#mega.format(value / 1e6)
  }

  duration(seconds: number): string {
    return seconds < 90
      ? this.#seconds.format(Math.max(1, Math.round(seconds)))
      : this.#minutes.format(Math.round(seconds / 60))
  }
}
