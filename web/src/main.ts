import { mount } from 'svelte'
import { Account } from './account.svelte.ts'
import { Api } from './api.ts'
import App from './App.svelte'
import './app.css'
import { browserTabs } from './conversation/tabs.ts'
import { Conversation } from './conversation.svelte.ts'
import { Panel } from './panel/panel.svelte.ts'
import { Preferences } from './preferences.svelte.ts'
import { Layout } from './sidebar/layout.svelte.ts'
import { Library } from './sidebar/library.svelte.ts'
import { sharingReach } from './stream/reach.ts'
import { browserWorld } from './stream/world.ts'

const world = sharingReach(browserWorld())
const api = new Api(world)
const account = new Account(api)
const conversation = new Conversation(api, world, browserTabs(world))
const library = new Library(api, world)
conversation.onNews = (news) => library.hear(news)
const panel = new Panel(api, world, conversation)
mount(App, {
  target: document.body,
  props: {
    conversation,
    library,
    layout: new Layout(),
    panel,
    preferences: new Preferences(),
    account,
  },
})
