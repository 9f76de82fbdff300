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
    loadImage: (host: string) => `Load image from ${host}`,
  },
  leftOut: (count: string) => `Earlier messages left out for lack of room: ${count}`,
  jumpToEnd: 'Jump to the end',
  retry: 'Try again',
  carryOn: 'Continue',
  withdraw: 'Take back',
  reload: 'Reload',
  accessKey: 'Access key',
  signIn: 'Open',
  signInWhy: 'This server asks for its access key.',
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
    loadImage: (host) => `从 ${host} 加载图片`,
  },
  leftOut: (count) => `篇幅所限，较早的 ${count} 条消息未被读取`,
  jumpToEnd: '回到底部',
  retry: '重试',
  carryOn: '继续',
  withdraw: '撤回',
  reload: '重新加载',
  accessKey: '访问密钥',
  signIn: '进入',
  signInWhy: '此服务器需要访问密钥。',
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

/** The language of a text, for fonts, line breaking and screen readers; null where it is not clear. */
export function languageOf(text: string): Language | null {
  const sample = text.slice(0, 400)
  const han = sample.match(/\p{Script=Han}/gu)?.length ?? 0
  const latin = sample.match(/\p{Script=Latin}+/gu)?.length ?? 0
  if (han + latin === 0) return null
  return han > latin ? 'zh' : 'en'
}

export class Numbers {
  readonly #percent: Intl.NumberFormat
  readonly #mega: Intl.NumberFormat
  readonly #plain: Intl.NumberFormat
  readonly #seconds: Intl.NumberFormat
  readonly #minutes: Intl.NumberFormat

  readonly language: Language

  constructor(language: Language) {
    this.language = language
    const unit = (name: string, digits = 0): Intl.NumberFormat =>
      new Intl.NumberFormat(language, {
        style: 'unit',
        unit: name,
        unitDisplay: 'short',
        maximumFractionDigits: digits,
      })
    this.#percent = new Intl.NumberFormat(language, { style: 'percent' })
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
    return this.#mega.format(value / 1e6)
  }

  duration(seconds: number): string {
    return seconds < 90
      ? this.#seconds.format(Math.max(1, Math.round(seconds)))
      : this.#minutes.format(Math.round(seconds / 60))
  }
}
