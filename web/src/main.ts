import { mount } from 'svelte'
import { Api } from './api.ts'
import App from './App.svelte'
import './app.css'
import { Conversation } from './conversation.svelte.ts'
import { Preferences } from './preferences.svelte.ts'
import { browserWorld } from './stream/world.ts'

const world = browserWorld()
const conversation = new Conversation(new Api(world), world)
mount(App, { target: document.body, props: { conversation, preferences: new Preferences() } })
