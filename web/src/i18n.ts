/** What the page says, in English and Chinese. `i18n.test.ts` checks that neither lacks anything. */

import { knownCode, type Code } from './remedies.ts'

export type Language = 'en' | 'zh'

const en = {
  language: 'English',
  newChat: 'New chat',
  untitled: 'Untitled',
  theme: { label: 'Theme', system: 'System', light: 'Light', dark: 'Dark' },
  reveal: {
    label: 'How answers come into view',
    off: 'At once',
    live: 'As they arrive',
    smooth: 'Evenly',
    typewriter: 'Typewriter',
  },
  menu: {
    open: 'Preferences',
    language: 'Language',
    keyHolder: 'Signed in with the access key',
    signedIn: (name: string) => `Signed in as ${name}`,
    signOut: 'Sign out',
    notSignedOut: (why: string) => `Still signed in. ${why}`,
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
    refusedHere: 'Over plain HTTP this browser does not let pages copy',
    loadImage: (host: string) => `Load image from ${host}`,
    done: 'Done',
    open: 'To do',
  },
  leftOut: (count: string) => `Earlier messages left out for lack of room: ${count}`,
  jumpToEnd: 'Jump to the end',
  remedy: {
    again: 'Try again',
    edit: 'Edit the question',
    settings: 'Change the settings',
    newChat: 'Ask in a new chat',
    anew: 'Answer again',
    reload: 'Reload the chat',
  },
  carryOn: 'Continue',
  withdraw: 'Take back',
  reload: 'Reload',
  accessKey: 'Access key',
  signIn: 'Open',
  signInTitle: 'This server is locked',
  signInWhy:
    'Whoever runs it can give you a sign-in link or an access key. This browser remembers it.',
  signInByLink: 'This link signs you in, once, on this browser.',
  signInOpenly:
    'This page came over plain HTTP: whoever is on the same network can read what you type here.',
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
    heldEdited: 'This question was being edited in a tab that is gone, so it has not been sent.',
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
  sidebar: {
    label: 'Chats',
    show: 'Show the chats',
    hide: 'Hide the chats',
    search: 'Search the chats',
    today: 'Today',
    yesterday: 'Yesterday',
    week: 'Previous 7 days',
    none: 'What you ask is kept here.',
    noneFound: 'Nothing found',
    living: 'An answer is being written',
    unread: 'A new answer',
    options: (title: string) => `Options for ${title}`,
    rename: 'Rename',
    newTitle: 'New title',
    saveMarkdown: 'Save as Markdown',
    saveJson: 'Save as JSON',
    delete: 'Delete',
    deleted: (title: string) => `“${title}” is deleted.`,
    undo: 'Undo',
    dismiss: 'Dismiss',
    finished: (title: string) => `“${title}” has its answer.`,
    brokeOff: (title: string) => `The answer in “${title}” broke off.`,
    look: 'Look',
    import: 'Import',
    importing: 'Importing…',
    saveAll: 'Save all',
    drop: 'Drop the file to import its chats',
    added: (count: string) => `Chats imported: ${count}`,
    known: (count: string) => `There already: ${count}`,
    skipped: (count: string) => `Left out: ${count}`,
    notImported: 'It was not imported.',
    partlyImported: 'It was imported in part.',
  },
  close: 'Close',
  partMissing: 'This part of the page could not be loaded.',
  outdated: {
    text: 'The server has a new version of this page.',
    reload: 'Reload',
  },
  model: {
    restarting: 'The engine restarts',
    unknown: 'Settings',
    context: (tokens: string) => `reads ${tokens} tokens`,
    noAnswer: 'No engine has answered yet.',
    fetching: (model: string) => `Fetching ${model}`,
    waiting: (model: string) => `${model} waits for the answers being written`,
    loading: (model: string) => `Loading ${model}`,
    returning: 'Going back to the model before',
    choose: 'Another model…',
    title: 'Model for everybody',
    here: 'On the server',
    known: 'Can be downloaded',
    other: 'Another one',
    otherHint: 'A name or an address on a hub, such as Qwen/Qwen2-0.5B-Instruct-GGUF, or a path.',
    size: (file: string, memory: string) => `${file}, takes ${memory} of memory`,
    tooLarge: 'too large for this server',
    now: 'Cut the answers that are being written',
    nowHint: 'Otherwise they are finished first. What is cut is kept and can be continued.',
    switch: 'Switch',
    callOff: 'Keep the present model',
    apart: 'The engine runs apart from this server: its model is chosen where it is started.',
    failed: (model: string, why: string) => `No switch to ${model}. ${why}`,
  },
  settings: {
    open: 'Settings of this chat',
    title: 'This chat',
    system: 'System prompt',
    systemHint: 'What the model is told before every conversation turn of this chat.',
    preset: 'Preset',
    modelsOwn: 'The model’s own',
    adjusted: 'Adjusted',
    precise: 'Precise',
    balanced: 'Balanced',
    creative: 'Creative',
    presetName: 'Name of the preset',
    savePreset: 'Keep as preset',
    removePreset: (name: string) => `Forget preset ${name}`,
    more: 'More parameters',
    drawn: 'drawn anew',
    untilFull: 'until the context is full',
    none: 'none',
    save: 'Save',
    reset: 'Reset all',
    counts: 'Counts from the next answer on. An empty field is as the model has it.',
    names: {
      temperature: 'Temperature',
      top_p: 'Top-p',
      top_k: 'Top-k',
      min_p: 'Min-p',
      repetition_penalty: 'Repetition penalty',
      presence_penalty: 'Presence penalty',
      frequency_penalty: 'Frequency penalty',
      seed: 'Seed',
      max_tokens: 'Longest answer, in tokens',
      stop: 'Stop texts, one a line',
    },
    hints: {
      temperature: 'Low is predictable, high is surprising; 0 always takes the likeliest word.',
      top_p: 'Only the likeliest words that together reach this probability.',
      top_k: 'Only so many of the likeliest words; 0 for all.',
      min_p: 'Only words at least this likely, compared with the likeliest.',
      repetition_penalty: 'Above 1, words that were used are less likely.',
      presence_penalty: 'Above 0, words that were used at all are less likely.',
      frequency_penalty: 'Above 0, the more often a word was used the less likely it is.',
      seed: 'The same seed and question give the same answer, where the engine allows it.',
      max_tokens: 'The answer is cut here; Continue goes on.',
      stop: 'The answer ends before any of these. \\n stands for a line break.',
    },
    problem: {
      number: 'That is not a number.',
      whole: 'A whole number, please.',
      between: (least: string, most: string) => `From ${least} to ${most}.`,
      above: (least: string, most: string) => `More than ${least}, at most ${most}.`,
      many: (most: string) => `At most ${most} stop texts.`,
      long: (most: string) => `At most ${most} characters each.`,
      system: (most: string) => `At most ${most} characters.`,
      notSaved: (why: string) => `Not saved. ${why}`,
    },
  },
  meter: {
    label: (share: string) => `Context: ${share} full`,
    used: (tokens: string, size: string) => `${tokens} of ${size} tokens`,
    about: (tokens: string, size: string) => `About ${tokens} of ${size} tokens`,
    room: (tokens: string) => `${tokens} left for the answer`,
    near: 'The context is nearly full. Soon the oldest messages will be left out.',
    left_out: (count: string) => `No room for the oldest messages: ${count} are left out.`,
    too_long: 'The question is longer than the model can read.',
    horizon: 'The model reads from here on',
  },
  made: {
    tokens: (count: string) => `${count} tokens`,
    speed: (perSecond: string) => `${perSecond} tokens/s`,
    firstToken: (time: string) => `first after ${time}`,
    took: (time: string) => `${time} in all`,
    show: 'What this answer was made with',
    none: 'None',
    promptTokens: 'Tokens read',
    cachedTokens: 'of them known already',
    total: 'Time in all',
  },
  trace: {
    label: 'Trace: what arrived and what is in view',
    arrived: 'arrived',
    shown: 'in view',
    firstToken: 'First token',
    speed: 'Tokens/s',
    lag: 'Lag',
    longestLag: 'Longest',
    characters: 'Characters',
  },
  shortcuts: {
    open: 'Keyboard shortcuts',
    newChat: 'New chat',
    write: 'Go to the question',
    stop: 'Stop the answer',
    copyAnswer: 'Copy the last answer',
    search: 'Search',
    sidebar: 'Show or hide the list of chats',
    list: 'This list',
  },
  problem: {
    offline: 'The server does not answer.',
    queue_full: 'Too many questions are waiting. Try again in a moment.',
    too_many_readers: 'The server has as many readers as it can take. Try again in a moment.',
    too_many_connections: 'The server has as many visitors as it can take. Try again in a moment.',
    too_many_runs: 'You have as many answers under way as you may. Wait for one of them.',
    too_many_requests: 'You have asked too often in this minute. Try again in a moment.',
    too_many_tokens: 'You have used up what you may for now. Try again in a moment.',
    too_many_attempts: 'Too many wrong keys came from here. Try again in a moment.',
    request_timeout: 'The connection was too slow. Try again.',
    body_too_slow: 'The connection was too slow for so much text. Try again.',
    body_too_large: 'That is longer than the server takes. Shorten it.',
    empty_prompt: 'The question is empty.',
    prompt_too_long:
      'The model cannot read that much at once. Shorten the question or the system prompt.',
    bad_prompt: 'The model cannot read the question or the system prompt as it is.',
    unsupported_parameter: 'The engine cannot do something that the settings of this chat ask for.',
    unknown_token: 'The settings of this chat name a token that the model does not have.',
    invalid_parameter: 'The server does not take a value in the settings of this chat.',
    key_reused: 'The server has had this question in other words. Change it to ask anew.',
    engine_given_up:
      'The engine does not start. Ask whoever runs this server to look at its console.',
    engine_unreachable: 'No engine has answered for too long. Ask whoever runs this server.',
    engine_not_ready: 'The engine is not ready yet. Try again in a moment.',
    engine_lost: 'The engine died and cannot go on by itself.',
    engine_failed: 'The engine could not go on.',
    engine_crashed: 'The engine died at this question again and again. Put it in other words.',
    model_changed: 'The model was exchanged in mid-answer.',
    internal: 'Something went wrong in the server. Its console says what.',
    disk_full: 'The disk of the server is full.',
    log_unwritable: 'The server cannot save anything. Its disk may be full.',
    run_active: 'Another answer is being written in this chat.',
    nothing_to_continue: 'There is nothing to go on from.',
    cannot_continue: 'The model cannot go on from here.',
    bad_seam: 'The model cannot go on from here.',
    unknown_chat: 'This chat does not exist, or not any more.',
    chat_deleted: 'This chat has been deleted.',
    unknown_message: 'The server does not know this message any more.',
    not_an_answer: 'The server knows another message in this place.',
    unknown_run: 'The server does not know this answer any more.',
    expired: 'The server has only the end of this answer left.',
    unauthorized: 'The key was not accepted.',
    link_used_up: 'That link has been used, or is too old. Ask for another one.',
    admins_only: 'That is for admins.',
    other_user: 'Somebody else is signed in by now.',
    foreign_host: 'The server is not meant to be reached by this address. Ask whoever runs it.',
    foreign_origin: 'The server takes nothing from pages at this address. Ask whoever runs it.',
    bad_json: 'This file is not JSON.',
    unknown_format: 'This is no export of inkstream, ChatGPT or Open WebUI.',
    query_too_long: 'That is too long to search for.',
    other: (message: string) => `Something went wrong: ${message}`,
  } satisfies Record<Code, string> & { other: unknown },
}

export type Words = typeof en

const zh: Words = {
  language: '中文',
  newChat: '新对话',
  untitled: '无标题',
  theme: { label: '主题', system: '跟随系统', light: '浅色', dark: '深色' },
  reveal: {
    label: '回答的显示方式',
    off: '立即显示',
    live: '随到随显',
    smooth: '匀速显示',
    typewriter: '打字机',
  },
  menu: {
    open: '偏好设置',
    language: '语言',
    keyHolder: '已用访问密钥登录',
    signedIn: (name) => `已登录：${name}`,
    signOut: '退出登录',
    notSignedOut: (why) => `未能退出。${why}`,
  },
  greeting: '想了解些什么？',
  question: '你的问题',
  placeholder: '输入你的问题',
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
    refusedHere: '此浏览器不允许 HTTP 页面复制',
    loadImage: (host) => `从 ${host} 加载图片`,
    done: '已完成',
    open: '未完成',
  },
  leftOut: (count) => `受长度所限，模型未读取较早的 ${count} 条消息`,
  jumpToEnd: '回到底部',
  remedy: {
    again: '重试',
    edit: '修改问题',
    settings: '调整设置',
    newChat: '在新对话中提问',
    anew: '重新回答',
    reload: '重新加载对话',
  },
  carryOn: '继续',
  withdraw: '撤回',
  reload: '重新加载',
  accessKey: '访问密钥',
  signIn: '进入',
  signInTitle: '此服务器需要密钥',
  signInWhy: '请向服务器管理员索取登录链接或访问密钥。此浏览器会记住登录状态。',
  signInByLink: '用此链接可在这个浏览器上登录，仅限一次。',
  signInOpenly: '此页面未经加密（HTTP），同一网络中的人可能看到你在这里输入的内容。',
  loadingChat: '正在打开对话',
  phase: {
    sending: '正在发送',
    connecting: '正在等待引擎',
    downloading: '正在下载模型',
    loading: '正在加载模型',
    given_up: '引擎无法启动',
    next: '下一位就是你',
    queued: (place) => `排队中，第 ${place} 位`,
    reading: '正在读取对话',
    unwritable: '服务器暂时无法保存，回答已暂停',
    starting: '即将开始',
    generating: '正在回答',
  },
  askKeeper: '请联系管理员查看服务器控制台。服务器提示：',
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
    waits: '上面的回答结束后自动发送',
    held: '上面的回答中断了，这个问题还没有发送。',
    heldEdited: '修改这个问题的标签页已关闭，问题还没有发送。',
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
  sidebar: {
    label: '对话',
    show: '显示对话列表',
    hide: '隐藏对话列表',
    search: '搜索对话',
    today: '今天',
    yesterday: '昨天',
    week: '过去 7 天',
    none: '聊过的内容会留在这里。',
    noneFound: '没有找到',
    living: '正在回答',
    unread: '有新回答',
    options: (title) => `“${title}”的更多操作`,
    rename: '重命名',
    newTitle: '新标题',
    saveMarkdown: '导出 Markdown',
    saveJson: '导出 JSON',
    delete: '删除',
    deleted: (title) => `“${title}”已删除。`,
    undo: '撤销',
    dismiss: '关闭提示',
    finished: (title) => `“${title}”已回答完毕。`,
    brokeOff: (title) => `“${title}”的回答中断了。`,
    look: '查看',
    import: '导入',
    importing: '正在导入…',
    saveAll: '全部导出',
    drop: '松开即可导入文件中的对话',
    added: (count) => `已导入 ${count} 个对话`,
    known: (count) => `${count} 个对话此前已导入`,
    skipped: (count) => `跳过 ${count} 项`,
    notImported: '未能导入。',
    partlyImported: '只导入了一部分。',
  },
  close: '关闭',
  partMissing: '页面的这部分内容加载失败。',
  outdated: {
    text: '页面有新版本。',
    reload: '重新加载',
  },
  model: {
    restarting: '引擎正在重启',
    unknown: '对话设置',
    context: (tokens) => `上下文 ${tokens} 词元`,
    noAnswer: '引擎尚未响应。',
    fetching: (model) => `正在获取 ${model}`,
    waiting: (model) => `等回答写完后切换到 ${model}`,
    loading: (model) => `正在加载 ${model}`,
    returning: '正在恢复原来的模型',
    choose: '更换模型…',
    title: '所有人使用的模型',
    here: '服务器上已有',
    known: '可以下载',
    other: '其他模型',
    otherHint: '模型库中的名称或网址（例如 Qwen/Qwen2-0.5B-Instruct-GGUF），或文件路径。',
    size: (file, memory) => `${file}，需内存 ${memory}`,
    tooLarge: '超出此服务器的内存',
    now: '中断正在生成的回答',
    nowHint: '否则先等它们写完。被中断的内容会保留，可以继续。',
    switch: '更换',
    callOff: '不更换了',
    apart: '引擎独立于此服务器运行，请在启动引擎时选择模型。',
    failed: (model, why) => `未能换成 ${model}。${why}`,
  },
  settings: {
    open: '对话设置',
    title: '对话设置',
    system: '系统提示词',
    systemHint: '每次回答之前，模型都会先读这段话。',
    preset: '预设',
    modelsOwn: '模型默认',
    adjusted: '已调整',
    precise: '精确',
    balanced: '均衡',
    creative: '创意',
    presetName: '预设名称',
    savePreset: '存为预设',
    removePreset: (name) => `删除预设 ${name}`,
    more: '更多参数',
    drawn: '每次随机',
    untilFull: '写满上下文为止',
    none: '无',
    save: '保存',
    reset: '全部恢复默认',
    counts: '从下一个回答起生效，留空则用模型默认值。',
    names: {
      temperature: '温度',
      top_p: '核采样 Top-p',
      top_k: '候选数 Top-k',
      min_p: '最低概率 Min-p',
      repetition_penalty: '重复惩罚',
      presence_penalty: '存在惩罚',
      frequency_penalty: '频率惩罚',
      seed: '随机种子',
      max_tokens: '回答长度上限（词元）',
      stop: '停止文本，每行一个',
    },
    hints: {
      temperature: '低则稳妥，高则多变；0 表示总取最可能的词。',
      top_p: '只从累计概率达到此值的最可能的词中选取。',
      top_k: '只从这么多个最可能的词中选取；0 表示不限。',
      min_p: '只选概率不低于最高概率这一比例的词。',
      repetition_penalty: '大于 1 时，用过的词不易再出现。',
      presence_penalty: '大于 0 时，出现过的词不易再出现，不论次数。',
      frequency_penalty: '大于 0 时，用得越多的词越不易再出现。',
      seed: '引擎支持时，种子与问题相同则回答相同。',
      max_tokens: '回答到此为止，可用“继续”接着写。',
      stop: '遇到其中任何一个时，回答在它之前结束。\\n 表示换行。',
    },
    problem: {
      number: '这不是数字。',
      whole: '请填写整数。',
      between: (least, most) => `请填写 ${least} 到 ${most} 之间的值。`,
      above: (least, most) => `请填写大于 ${least}、不超过 ${most} 的值。`,
      many: (most) => `最多 ${most} 个停止文本。`,
      long: (most) => `每个最多 ${most} 个字符。`,
      system: (most) => `最多 ${most} 个字符。`,
      notSaved: (why) => `未能保存。${why}`,
    },
  },
  meter: {
    label: (share) => `上下文已用 ${share}`,
    used: (tokens, size) => `已用 ${tokens} / ${size} 个词元`,
    about: (tokens, size) => `约用 ${tokens} / ${size} 个词元`,
    room: (tokens) => `剩余 ${tokens} 个可用于回答`,
    near: '上下文即将用尽，最早的消息很快会被略去。',
    left_out: (count) => `上下文不够，最早的 ${count} 条消息已被略去。`,
    too_long: '问题长度超出模型上限。',
    horizon: '模型从这里开始读取',
  },
  made: {
    tokens: (count) => `${count} 个词元`,
    speed: (perSecond) => `每秒 ${perSecond} 个`,
    firstToken: (time) => `首字 ${time}`,
    took: (time) => `共 ${time}`,
    show: '查看生成参数',
    none: '无',
    promptTokens: '读入词元',
    cachedTokens: '其中已缓存',
    total: '总用时',
  },
  trace: {
    label: '跟踪：到达与显示',
    arrived: '到达',
    shown: '显示',
    firstToken: '首字用时',
    speed: '每秒词元',
    lag: '滞后',
    longestLag: '最长',
    characters: '字符数',
  },
  shortcuts: {
    open: '键盘快捷键',
    newChat: '新对话',
    write: '转到输入框',
    stop: '停止回答',
    copyAnswer: '复制最后一个回答',
    search: '搜索',
    sidebar: '显示或隐藏对话列表',
    list: '显示快捷键列表',
  },
  problem: {
    offline: '服务器没有响应。',
    queue_full: '排队的问题太多，请稍后再试。',
    too_many_readers: '同时读取回答的连接已达上限，请稍后再试。',
    too_many_connections: '同时访问服务器的人太多，请稍后再试。',
    too_many_runs: '你同时进行的回答已达上限，请等其中一个结束。',
    too_many_requests: '你这一分钟内提问过多，请稍后再试。',
    too_many_tokens: '你的用量暂时已达上限，请稍后再试。',
    too_many_attempts: '密钥输错次数过多，请稍后再试。',
    request_timeout: '网络太慢，请重试。',
    body_too_slow: '内容较长而网络太慢，请重试。',
    body_too_large: '内容超出了服务器的长度限制，请缩短。',
    empty_prompt: '问题是空的。',
    prompt_too_long: '内容太长，模型一次读不完。请缩短问题或系统提示词。',
    bad_prompt: '模型无法读取这个问题或系统提示词。',
    unsupported_parameter: '对话设置中有引擎不支持的参数。',
    unknown_token: '对话设置中有模型词表里没有的词元。',
    invalid_parameter: '对话设置中有服务器不接受的值。',
    key_reused: '这个问题曾以另一种说法发送过，修改后可作为新问题发送。',
    engine_given_up: '引擎无法启动，请联系管理员查看服务器控制台。',
    engine_unreachable: '引擎太久没有响应，请联系管理员。',
    engine_not_ready: '引擎尚未就绪，请稍后再试。',
    engine_lost: '引擎意外退出，无法自动继续。',
    engine_failed: '引擎无法继续。',
    engine_crashed: '引擎在这个问题上反复崩溃，请换个说法。',
    model_changed: '回答途中模型被更换了。',
    internal: '服务器内部出错，详情见服务器控制台。',
    disk_full: '服务器磁盘已满。',
    log_unwritable: '服务器无法保存内容，磁盘可能已满。',
    run_active: '这个对话中有另一个回答正在进行。',
    nothing_to_continue: '没有可以继续的内容。',
    cannot_continue: '模型无法从这里接着写。',
    bad_seam: '模型无法从这里接着写。',
    unknown_chat: '这个对话不存在，或已被删除。',
    chat_deleted: '这个对话已被删除。',
    unknown_message: '服务器已找不到这条消息。',
    not_an_answer: '服务器上的这条消息与此处不一致。',
    unknown_run: '服务器已找不到这个回答。',
    expired: '服务器只保留了这个回答的最终结果。',
    unauthorized: '密钥不正确。',
    link_used_up: '这个链接已用过或已过期，请另外索取一个。',
    admins_only: '只有管理员可以这样做。',
    other_user: '现在登录的是另一位用户。',
    foreign_host: '服务器不接受通过此地址访问，请联系管理员。',
    foreign_origin: '服务器不接受来自此地址的页面，请联系管理员。',
    bad_json: '这个文件不是 JSON。',
    unknown_format: '这不是 inkstream、ChatGPT 或 Open WebUI 导出的文件。',
    query_too_long: '搜索内容太长。',
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
  const code = knownCode(failure.code)
  return code === null ? words.problem.other(failure.message) : words.problem[code]
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
  readonly #giga: Intl.NumberFormat
  readonly #plain: Intl.NumberFormat
  readonly #seconds: Intl.NumberFormat
  readonly #minutes: Intl.NumberFormat
  readonly #milliseconds: Intl.NumberFormat
  readonly #tenths: Intl.NumberFormat
  readonly #rounded: Intl.NumberFormat
  readonly #exact: Intl.NumberFormat

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
    this.#kilo = unit('kilobyte')
    this.#mega = unit('megabyte', 1)
    this.#giga = unit('gigabyte', 1)
    this.#plain = new Intl.NumberFormat(language)
    this.#seconds = unit('second')
    this.#minutes = unit('minute')
    this.#milliseconds = unit('millisecond')
    this.#tenths = unit('second', 1)
    this.#exact = new Intl.NumberFormat(language, { maximumFractionDigits: 6, useGrouping: false })
    this.#rounded = new Intl.NumberFormat(language, { maximumSignificantDigits: 3 })
  }

  plain(value: number): string {
    return this.#plain.format(value)
  }

  /** Of a parameter, with all its digits. */
  exact(value: number): string {
    return this.#exact.format(value)
  }

  /** Three digits of it, which is as much as a measurement is worth. */
  rounded(value: number): string {
    return this.#rounded.format(value)
  }

  /** Never 100 % before it is all there. */
  share(value: number): string {
    return this.#percent.format(Math.floor(value * 100) / 100)
  }

  bytes(value: number): string {
    if (value < 1e6) return this.#kilo.format(value / 1e3)
    return value < 1e9 ? this.#mega.format(value / 1e6) : this.#giga.format(value / 1e9)
  }

  /** A time that was measured. */
  time(seconds: number): string {
    if (seconds < 0.0995) return spaced(this.#milliseconds.format(seconds * 1_000))
    return seconds < 59.95 ? spaced(this.#tenths.format(seconds)) : this.duration(seconds)
  }

  duration(seconds: number): string {
    const format = seconds < 90 ? this.#seconds : this.#minutes
    const count = seconds < 90 ? Math.max(1, Math.round(seconds)) : Math.round(seconds / 60)
    return spaced(format.format(count))
  }
}

/** Chinese is set with a space between a number and the word behind it, which the formats do not have. */
function spaced(text: string): string {
  return text.replace(/(\d)(?=\p{Script=Han})/gu, '$1 ')
}
